# The clients in Go. Where Go is missing, what needs it is left out with a word.

GO ?= go
GO_CLIENTS := tests/clients/go
GO_MIN := $(shell sed -n 's/^go //p' $(GO_CLIENTS)/go.mod)
# The toolchain that is installed, and the modules of go.sum.
GO_RUN := GOTOOLCHAIN=local GOFLAGS='-mod=readonly -buildvcs=false' $(GO)
# Prints what the Go clients need and this machine has not.
GO_MISSING := printf '%s\n' go$(GO_MIN) "$$(GOTOOLCHAIN=local $(GO) env GOVERSION 2>/dev/null)" | sort -VC || \
	echo "Go $(GO_MIN) or later"

.PHONY: go go-run go-lint go-lint-run go-stubs

go go-lint:
	@missing=$$($(GO_MISSING)); if [ -z "$$missing" ]; then $(MAKE) --no-print-directory $@-run; else \
		echo "$@: skipped, because this is missing: $$missing" >&2; test -z "$$CI"; fi

# GO_TEST takes more arguments, as in `make go GO_TEST='-run Flight/ingest'`.
go-run:
	cargo build --locked $(FEATURES)
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
