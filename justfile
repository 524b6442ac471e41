# Each recipe is one plain command.

# Builds the example models, serves them and calls each of them.
demo:
    cargo run --release -- demo

# Everything that is tested.
test:
    cargo test --release --workspace

# Timings, printed as ratios of one run.
bench:
    cargo bench -p ringfence-tests

fmt:
    cargo fmt --all

lint:
    cargo clippy --release --workspace --all-targets -- -D warnings

# Licences, sources and duplicate crates; advisories need their database.
deny:
    cargo deny check bans licenses sources

ci:
    bash .ci/run
