//! Hands the host what is no value of the type that it is said to be (HST-04,
//! HST-05). The parameter `what` chooses: `case` (of an enumeration, one more than
//! there are; the default), `type` (the same of a tensor's), `text` (no UTF-8),
//! `half` (a text that ends within a character), `length` (beyond the memory) or
//! `alignment` (numbers that do not begin where numbers begin).
//!
//! Expected: GUEST_TRAP.

#![allow(unsafe_code, reason = "JUSTIFICATION: the bindings make no such values")]

use ringfence_guest::{Error, Input, Model, Output, Params};

#[link(wasm_import_module = "ringfence:model/context@0.1.0")]
unsafe extern "C" {
    #[link_name = "log"]
    fn raw_log(level: u32, text: *const u8, length: usize);
}

#[link(wasm_import_module = "wasi:nn/tensor@0.2.0-rc-2024-10-28")]
unsafe extern "C" {
    #[link_name = "[constructor]tensor"]
    fn raw_tensor(
        shape: *const u8,
        axes: usize,
        element: u32,
        data: *const u8,
        length: usize,
    ) -> u32;
}

const INFO: u32 = 1;
const LEVELS: u32 = 4;
const U8: u32 = 4;
const ELEMENTS: u32 = 7;

/// One axis of one element, wherever it is read from.
#[repr(align(4))]
struct Shape([u8; 8]);

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, params: &Params) -> Result<Output, Error> {
        let log = |level, text: &[u8], length| {
            // SAFETY: none; the host has to refuse what it is told.
            unsafe { raw_log(level, text.as_ptr(), length) }
        };
        let tensor = |offset, element| {
            let (shape, data) = (Shape([1, 0, 0, 0, 0, 0, 0, 0]), [0]);
            let shape = shape.0.as_ptr().wrapping_add(offset);
            // SAFETY: as above.
            unsafe { raw_tensor(shape, 1, element, data.as_ptr(), 1) };
        };
        match params.str("what")?.unwrap_or("case") {
            "case" => log(LEVELS, b"x", 1),
            "type" => tensor(0, ELEMENTS),
            "text" => log(INFO, b"\xff\xfe", 2),
            "half" => log(INFO, "ä".as_bytes(), 1),
            "length" => log(INFO, b"x", usize::MAX),
            "alignment" => tensor(1, U8),
            other => return Err(Error::invalid_argument(format!("no such case: `{other}`"))),
        }
        Ok(Output::text("taken after all"))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
