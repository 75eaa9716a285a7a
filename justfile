# What people type. `just` lists it; https://just.systems
# Everything runs without just as well: CONTRIBUTING.md names the commands.

set positional-arguments

_list:
    @just --list --unsorted

# Run every test, as CI does without nextest
test *ARGS:
    cargo test --workspace "$@"

# Run the tests that need no server, in under a minute
unit *ARGS:
    cargo nextest run -P unit "$@"

# Run the tests on fakes that take minutes: protocol, crash points, long outages
simulation *ARGS:
    cargo nextest run -P simulation "$@"

# Run the tests on real servers
servers *ARGS:
    cargo nextest run -P servers "$@"

# Run the console's tests in Chromium
browser *ARGS:
    cargo nextest run -P browser "$@"

# Run the end-to-end tests whose name contains NAME, and show their output
e2e NAME *ARGS:
    cargo test --workspace --test e2e -- --nocapture "$@"

# Check formatting, clippy and the workflows' syntax where actionlint is installed
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    if command -v actionlint >/dev/null; then actionlint; fi

# Format the code
fmt:
    cargo fmt --all

# Build the API documentation as CI does
docs *ARGS:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps "$@"

# Serve the documentation site on 127.0.0.1:8000
site: (_mkdocs "serve")

# Build the documentation site as CI does
site-build: (_mkdocs "build" "--strict")

_mkdocs *ARGS:
    test -x target/site-venv/bin/mkdocs || python3 -m venv target/site-venv
    target/site-venv/bin/pip install --quiet --disable-pip-version-check -r docs/requirements.txt
    target/site-venv/bin/mkdocs "$@"

# Start the local stack and the pipeline with demo data
up *ARGS="--demo":
    cargo run --release -- up "$@"

# Measure the pipeline; `just bench --baseline DIR` beside a baseline
bench *ARGS:
    cargo build --release -p tidewheel -p tidewheel-local-qdrant -p tidewheel-bench --config profile.release.package.qdrant-edge.opt-level=3
    target/release/tidewheel-bench "$@"

# Run the chaos soak; `just soak --seed 7 --duration 1m`
soak *ARGS:
    cargo build --release -p tidewheel -p tidewheel-bench
    target/release/tidewheel-soak "$@"

# Fuzz a target for SECONDS: model_config, tokenizer or safetensors
fuzz TARGET SECONDS="600":
    mkdir -p fuzz/corpus/{{ TARGET }}
    RUSTC_BOOTSTRAP=1 cargo fuzz run {{ TARGET }} fuzz/corpus/{{ TARGET }} fuzz/seeds/{{ TARGET }} -- -max_total_time={{ SECONDS }} -rss_limit_mb=2048

# Run tests and review the snapshots that changed; `just snapshots --test cli` (needs cargo-insta)
snapshots *ARGS:
    cargo insta test --review --workspace "$@"

# Check licences, sources, advisories and duplicate dependencies
deny *ARGS="check":
    cargo deny "$@"

# Run everything that a change has to pass
ci:
    .ci/run
