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

# Everything at once for so many minutes: what a host holds does not grow.
soak minutes="10":
    RINGFENCE_SOAK_MINUTES={{minutes}} cargo test --release -p ringfence-tests --test end_to_end -- --ignored --nocapture --exact soak::what_a_host_holds_does_not_grow

# Attacks, each against a real host, one after the other.
corpus:
    cargo test --release -p ringfence-tests --test end_to_end -- --test-threads 1 each_guest:: seam:: logs:: receipts:: start:: operators:: metrics:: limits:: floods:: bad_requests:: hostile_graphs:: streams:: ends:: isolation:: upload_limits:: bombs:: upload::what upload::an_archive tokens:: policy:: oracles:: damaged:: media:: metadata:: urls:: time:: workers::

# Takes each limit away in turn, or those that are named, and wants the test that hits it to fail.
limits-bite *limits:
    bash tests/limits-bite {{limits}}

# What has to be seen on a device of NVIDIA's: needs one, CUDA 13 with cuDNN, and RINGFENCE_BENCH_MODELS. tests/gpu says
# what else can be named, and how to pack it for a machine that builds nothing.
gpu:
    bash tests/gpu run

# Looks whether the host compiles for systems that it is not run on. Needs their targets, by rustup, and C
# compilers for them: CC_aarch64_apple_darwin, CC_aarch64_unknown_linux_gnu.
elsewhere:
    cargo check --release -p ringfence --target aarch64-unknown-linux-gnu
    cargo check --release -p ringfence --target aarch64-apple-darwin

fmt:
    cargo fmt --all

lint:
    cargo clippy --release --workspace --all-targets -- -D warnings

# Ten minutes of a fuzz target, one of tests/fuzz/fuzz_targets. Needs cargo-fuzz and a nightly compiler.
fuzz target:
    cd tests/fuzz && mkdir -p corpus/{{target}} && cargo +nightly fuzz run --fuzz-dir . -s none {{target}} corpus/{{target}} seeds/{{target}} -- -max_total_time=600 -timeout=5

# A minute of each.
fuzz-smoke:
    cd tests/fuzz && for target in $(cargo +nightly fuzz list --fuzz-dir .); do mkdir -p corpus/$target && cargo +nightly fuzz run --fuzz-dir . -s none $target corpus/$target seeds/$target -- -max_total_time=60 -timeout=5 || exit 1; done

# Licences, sources and duplicate crates; advisories need their database.
deny:
    cargo deny check bans licenses sources

ci:
    bash .ci/run
