# make test    format, lint, and every test: Rust, then clients against a real server
#
# Clients in Python always run. Those in other languages run where their tools
# are, and what is skipped is said; with CI set, that is an error.
# Plans of Substrait are built in and tested where protoc is.
#
# make clients-table    write docs/clients.md from what the last `make test` found

PYTHON ?= python3
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
REQUIREMENTS := tests/clients/python/requirements.txt
# What each client can do, as its tests find it.
CLIENT_FEATURES := $(abspath $(TARGET_DIR))/features.jsonl
CLIENT_TABLE := $(PYTHON) -B tests/clients/table.py

# The Python packages are kept outside the checkout where that is possible, one
# directory for each list of packages.
CACHE_DIR := $(shell dir="$${XDG_CACHE_HOME:-$$HOME/.cache}/jammi"; \
	mkdir -p "$$dir" 2>/dev/null && test -w "$$dir" && echo "$$dir" || echo .venv)
VENV := $(CACHE_DIR)/python-$(shell { $(PYTHON) --version; cat $(REQUIREMENTS); } 2>&1 | sha256sum | cut -c1-16)

# What is built and tested with: the crates of Substrait compile their definitions with
# protoc, which has to find those of Google's beside it.
SUBSTRAIT_MISSING := $(shell "$${PROTOC:-protoc}" --descriptor_set_out=/dev/null google/protobuf/any.proto \
	2>/dev/null || echo "protoc and the definitions that come with it")
FEATURES := $(if $(SUBSTRAIT_MISSING),,--features substrait)

.NOTPARALLEL:
PACKAGES := cargo tree --locked --prefix none --format '{p} {f}'

.PHONY: test format lint features rust python clients-forget clients-table

# The console first, since builds embed it.
test: export JAMMI_FEATURES := $(CLIENT_FEATURES)
test: clients-forget console format lint rust python go java browser
	$(CLIENT_TABLE) --check docs/clients.md $(CLIENT_FEATURES)

clients-forget:
	rm -f $(CLIENT_FEATURES)

clients-table:
	$(CLIENT_TABLE) docs/clients.md $(CLIENT_FEATURES)

format:
	cargo fmt --check

lint: features go-lint
	cargo clippy --locked --all-targets -- -D warnings
	$(if $(FEATURES),cargo clippy --locked --all-targets $(FEATURES) -- -D warnings)

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

# The servers that these tests start refuse a variable that is no setting.
rust:
	@if [ -n "$(SUBSTRAIT_MISSING)" ]; then \
		echo "SKIPPED: plans of Substrait need $(SUBSTRAIT_MISSING):" \
			"install protobuf-compiler and libprotobuf-dev" >&2; test -z "$$CI"; \
	fi
	env -u JAMMI_FEATURES cargo test --locked $(FEATURES)

# PYTEST takes more arguments, as in `make python PYTEST='-k s3'`.
python: $(VENV)/complete
	cargo build --locked $(FEATURES)
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

include tests/clients/go/go.mk
include tests/clients/java/java.mk
include tests/clients/browser/browser.mk
include tests/isolation/isolation.mk
include fuzz/fuzz.mk
-include benches/bench.mk
