# `make fuzz TARGET=sql SECONDS=3600` fuzzes one of the targets of `fuzz/`, which needs
# a nightly compiler and cargo-fuzz (`cargo install cargo-fuzz`). `make test` runs each
# for a little while without these. Inputs that reach new code are kept outside the
# checkout; one that fails belongs into fuzz/corpus, where `make test` tries it again.

FUZZ_TARGETS := commands handles headers ingest sql
SECONDS ?= 60

.PHONY: fuzz

fuzz: $(if $(TARGET),fuzz-$(TARGET),$(addprefix fuzz-,$(FUZZ_TARGETS)))

fuzz-%:
	mkdir -p $(abspath $(TARGET_DIR))/fuzz-corpus/$*
	cargo +nightly fuzz run $* $(abspath $(TARGET_DIR))/fuzz-corpus/$* fuzz/corpus/$* -- \
		-max_total_time=$(SECONDS) -max_len=4096 -rss_limit_mb=2048
