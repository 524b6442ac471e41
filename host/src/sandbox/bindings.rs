//! Host bindings generated from `wit/`. Owns nothing but the macro's options.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::indexing_slicing,
    reason = "the generated code documents itself by the WIT it comes from"
)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "model-runner",
    imports: {
        "ringfence:model/streams": async | trappable,
        "wasi:nn/inference": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "ringfence:model/types": crate::sandbox::types,
        "ringfence:model/streams.source": crate::sandbox::streams::Source,
        "ringfence:model/streams.sink": crate::sandbox::streams::Sink,
        "wasi:nn/tensor.tensor": crate::nn::guest::GuestTensor,
        "wasi:nn/errors.error": crate::nn::guest::GuestFailure,
        "wasi:nn/graph.graph": crate::nn::guest::GuestGraph,
        "wasi:nn/inference.graph-execution-context": crate::nn::guest::GuestContext,
    },
});
