//! Whether what a file says fits a JSON Schema, as an editor sees it. For tests.

use boon::{Compiler, Schemas};
use serde_json::Value;

/// Of a YAML text that can be read.
pub(crate) fn fits(schema: Value, text: &str) -> bool {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schema.json", schema).unwrap();
    let schema = compiler.compile("schema.json", &mut schemas).unwrap();
    schemas.validate(&serde_yaml::from_str(text).unwrap(), schema).is_ok()
}
