//! What the C library keeps open of the host's: standard streams, and the folder of assets.
//!
//! Owns that none of it is left when a model has loaded. A sandbox may start from a copy of
//! its memory, in which the number of a handle means nothing; what is closed is opened anew
//! where it is used next.
#![allow(
    unsafe_code,
    reason = "JUSTIFICATION: only functions of the C library close what it keeps by itself"
)]

/// Closes what printing and reading files has opened.
#[cfg(all(target_os = "wasi", target_env = "p2"))]
pub(crate) fn close() {
    use std::io::Write;

    unsafe extern "C" {
        #[link_name = "close"]
        fn close_descriptor(descriptor: i32) -> i32;
        fn __wasilibc_init_stdio() -> i32;
        fn __wasilibc_reset_preopens();
    }

    // What no line has ended yet would be printed by each copy. What cannot be printed is
    // lost, as it always is.
    let _ = std::io::stdout().flush();
    // SAFETY: descriptors are the C library's own numbers, and nothing runs beside this. It
    // opens these three by itself where they are used, once it knows of them.
    unsafe {
        // It gives a number again that was given back last, and counts from 0.
        let mut were_known = false;
        for descriptor in [2, 1, 0] {
            were_known |= close_descriptor(descriptor) == 0;
        }
        if were_known {
            __wasilibc_init_stdio();
        }
        __wasilibc_reset_preopens();
    }
}

/// Another C library keeps its handles where nobody can have them closed.
#[cfg(all(target_family = "wasm", not(all(target_os = "wasi", target_env = "p2"))))]
pub(crate) fn close() {}
