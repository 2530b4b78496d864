# `make bench`: the hot path by criterion, the figures through the wire, what one
# tenant costs another, and the figures of tables, which need PostgreSQL 15 (Debian's postgresql-15) to compare with.
# JAMMI_BENCH_DIR is where the data (about 1.5 GB) is kept between runs.

.PHONY: bench bench-hot-path bench-end-to-end bench-fairness bench-tables

bench: bench-hot-path bench-end-to-end bench-fairness bench-tables

bench-hot-path:
	cargo bench --bench hot_path

bench-end-to-end:
	cargo bench --bench end_to_end

bench-fairness:
	cargo bench --bench fairness

bench-tables:
	cargo bench --bench tables
