# `make isolation` attacks the server's isolation with generated conversations, of a
# seed that nobody has tried, for longer than `make test` does. SEED and STATEMENTS
# say which and for how long: `make isolation SEED=7 STATEMENTS=20000`.

SEED ?= $(shell date +%s)
STATEMENTS ?= 5000

.PHONY: isolation

isolation:
	ISOLATION_SEED=$(SEED) ISOLATION_STATEMENTS=$(STATEMENTS) \
		cargo test --locked $(FEATURES) --test isolation -- --nocapture
