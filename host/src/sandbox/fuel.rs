//! What a guest's instructions cost: fuel v1.
//!
//! Owns the prices, so that counts that authors have seen survive an upgrade of
//! wasmtime. Another table is another version.

use wasmtime::{OperatorCost, VariableOperatorCost};

/// Which table of prices this is.
pub const FUEL_VERSION: u32 = 1;

/// One for an instruction that computes, nothing for one that only structures the
/// code, one for each byte or element that a bulk instruction moves, and the most
/// that there can be for a page of memory, whose first touch costs far more time.
pub(super) fn prices() -> OperatorCost {
    let variable = VariableOperatorCost {
        memory_copy_per_byte: 1,
        memory_fill_per_byte: 1,
        memory_init_per_byte: 1,
        memory_grow_per_page: u8::MAX,
        table_copy_per_element: 1,
        table_fill_per_element: 1,
        table_init_per_element: 1,
        table_grow_per_element: 1,
        ..VariableOperatorCost::new()
    };
    OperatorCost { variable, ..OperatorCost::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where this fails after an upgrade, the prices of before have to be written
    /// out above, or it is fuel v2.
    #[test]
    fn prices_are_those_of_the_version() {
        const NOTHING: [&str; 8] =
            ["Block", "Drop", "Else", "End", "Loop", "Nop", "Return", "Unreachable"];
        assert_eq!(FUEL_VERSION, 1);
        let table = format!("{:?}", prices());
        let (flat, variable) = table.split_once("variable:").unwrap();
        let prices = flat.split_once('{').unwrap().1.split(',').filter_map(|price| {
            let (name, price) = price.trim().split_once(": ")?;
            Some((name, price.parse::<u8>().unwrap()))
        });
        let prices: Vec<_> = prices.collect();
        assert!(prices.len() > 400, "{}", prices.len());
        for (name, price) in prices {
            assert_eq!(price, u8::from(!NOTHING.contains(&name)), "{name}");
        }
        assert!(variable.contains("memory_grow_per_page: 255, table_copy_per_element: 1"));
    }
}
