# make test    format, lint, and every test: Rust, then Python and Go clients against a real server
#
# Nothing is skipped: what cannot run is an error. Go alone may be absent: what needs it is then left out with a
# word, unless `CI` is set.

PYTHON ?= python3
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
REQUIREMENTS := tests/clients/python/requirements.txt

# The Python packages are kept outside the checkout where that is possible, one
# directory for each list of packages.
CACHE_DIR := $(shell dir="$${XDG_CACHE_HOME:-$$HOME/.cache}/jammi"; \
	mkdir -p "$$dir" 2>/dev/null && test -w "$$dir" && echo "$$dir" || echo .venv)
VENV := $(CACHE_DIR)/python-$(shell { $(PYTHON) --version; cat $(REQUIREMENTS); } 2>&1 | sha256sum | cut -c1-16)

GO ?= go
GO_CLIENTS := tests/clients/go
GO_MIN := $(shell sed -n 's/^go //p' $(GO_CLIENTS)/go.mod)
# The toolchain that is installed, and the modules of go.sum.
GO_RUN := GOTOOLCHAIN=local GOFLAGS='-mod=readonly -buildvcs=false' $(GO)
# Prints what the Go clients need and this machine has not.
GO_MISSING := printf '%s\n' go$(GO_MIN) "$$(GOTOOLCHAIN=local $(GO) env GOVERSION 2>/dev/null)" | sort -VC || \
	echo "Go $(GO_MIN) or later"

.NOTPARALLEL:
PACKAGES := cargo tree --locked --prefix none --format '{p} {f}'

.PHONY: test format lint features rust python go go-run go-lint go-lint-run go-stubs

test: format lint rust python go

format:
	cargo fmt --check

lint: features go-lint
	cargo clippy --locked --all-targets -- -D warnings

# Tests and benches use the dependencies that a build leaves, unless what they
# depend on asks for another feature of one: then nearly all are built twice.
features:
	@lists=$$(mktemp -d) && trap 'rm -r "$$lists"' EXIT && \
	$(PACKAGES) --edges normal,build > $$lists/build && \
	$(PACKAGES) --edges normal,build,dev > $$lists/all && \
	sed -i 's/ (\*)$$//' $$lists/build $$lists/all && \
	if grep -vxF -f $$lists/all $$lists/build; then \
		echo "a dev-dependency asks for more features of these: name them in [dependencies] too" >&2; \
		exit 1; \
	fi

rust:
	cargo test --locked

# PYTEST takes more arguments, as in `make python PYTEST='-k s3'`.
python: $(VENV)/complete
	cargo build --locked
	JAMMI_BIN=$(abspath $(TARGET_DIR))/debug/jammi $(VENV)/bin/python -B -m pytest tests/clients/python $(PYTEST)

$(VENV)/complete:
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "the client tests need Python 3.11 or later with venv: install python3 and python3-venv," \
			"or name an interpreter with PYTHON=" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $(REQUIREMENTS)
	$(VENV)/bin/pip check --disable-pip-version-check
	touch $@

go go-lint:
	@missing=$$($(GO_MISSING)); if [ -z "$$missing" ]; then $(MAKE) --no-print-directory $@-run; else \
		echo "$@: skipped, because this is missing: $$missing" >&2; test -z "$$CI"; fi

# GO_TEST takes more arguments, as in `make go GO_TEST='-run Flight/ingest'`.
go-run:
	cargo build --locked
	cd $(GO_CLIENTS) && JAMMI_BIN=$(abspath $(TARGET_DIR))/debug/jammi $(GO_RUN) test -count=1 -timeout 10m $(GO_TEST) ./...

go-lint-run:
	@unformatted=$$("$$($(GO_RUN) env GOROOT)/bin/gofmt" -l $(GO_CLIENTS)) && test -z "$$unformatted" || { \
		echo "gofmt would change: $$unformatted" >&2; exit 1; }
	cd $(GO_CLIENTS) && $(GO_RUN) vet ./...

# Generates the Go stubs anew, which are kept so that the tests need no protoc.
go-stubs: $(VENV)/complete
	cd $(GO_CLIENTS) && export GOBIN=$(abspath $(CACHE_DIR))/go-bin && \
	$(GO_RUN) install google.golang.org/protobuf/cmd/protoc-gen-go && \
	$(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2 && \
	PATH="$$GOBIN:$$PATH" $(abspath $(VENV))/bin/python -m grpc_tools.protoc -I ../../../proto \
		$(foreach plugin,go go-grpc,--$(plugin)_out=session --$(plugin)_opt=paths=source_relative \
			--$(plugin)_opt=Mjammi/v1/session/session.proto=jammi/tests/clients/go/session) \
		jammi/v1/session/session.proto && \
	mv session/jammi/v1/session/*.go session && rm -r session/jammi

-include benches/bench.mk
