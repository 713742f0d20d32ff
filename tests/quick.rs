#[path = "it/alloc.rs"]
mod alloc;
#[path = "it/attention.rs"]
mod attention;
#[path = "it/decode.rs"]
mod decode;
#[path = "it/gemm.rs"]
mod gemm;
