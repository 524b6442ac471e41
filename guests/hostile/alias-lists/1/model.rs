//! Hands the host a list of lists that are all the same 8 MiB of guest memory
//! (HST-01, HST-02): 4,096 of them, 32 GiB if each is copied, unless the parameter
//! `lists` says another number.
//!
//! Expected: MEMORY_LIMIT where they are more than the host takes at once; it stops
//! copying there.

#![allow(unsafe_code, reason = "JUSTIFICATION: the bindings do not let lists share memory")]

use ringfence_guest::{Error, Input, Model, Output, Params};

const LISTS: u64 = 4096;
const LIST_BYTES: usize = 8 << 20;

// `wasi:nn/graph.load` as the component ABI flattens it.
#[link(wasm_import_module = "wasi:nn/graph@0.2.0-rc-2024-10-28")]
unsafe extern "C" {
    #[link_name = "load"]
    fn load(lists: *const List, length: usize, encoding: i32, target: i32, result: *mut [u32; 3]);
}

/// A `list<u8>` in memory.
#[repr(C)]
#[derive(Clone, Copy)]
struct List {
    bytes: *const u8,
    length: usize,
}

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, params: &Params) -> Result<Output, Error> {
        let count = params.u64("lists")?.unwrap_or(LISTS);
        let shared = vec![8_u8; LIST_BYTES];
        let list = List { bytes: shared.as_ptr(), length: shared.len() };
        let lists = vec![list; usize::try_from(count).unwrap_or(usize::MAX)];
        let mut result = [0; 3];
        // SAFETY: all lists point at `shared`, and the result has the three
        // words of a result<own, own>.
        unsafe { load(lists.as_ptr(), lists.len(), 1, 0, &raw mut result) };
        Ok(Output::text(format!("{result:?}")))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
