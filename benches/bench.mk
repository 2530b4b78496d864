# `make bench`: the hot path by criterion, then the figures through the wire.
# JAMMI_BENCH_DIR is where the data (about 1.5 GB) is kept between runs.

.PHONY: bench bench-hot-path bench-end-to-end

bench: bench-hot-path bench-end-to-end

bench-hot-path:
	cargo bench --bench hot_path

bench-end-to-end:
	cargo bench --bench end_to_end
