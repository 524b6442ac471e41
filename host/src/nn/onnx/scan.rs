//! What an ONNX file says of itself.
//!
//! Reads the whole file once and keeps little of it. Whatever passes here is of
//! bounded size when it has been read. What an engine makes of it may not be: shapes
//! that are computed from constants are the engine's to compute, and an upload is
//! loaded in a process with limits of its own first.

use super::protobuf::{Fields, Malformed, Value};
use crate::limits::limit;
use std::collections::HashMap;

/// Nodes of all graphs of a file.
const NODES_MAX: usize = 100_000;
/// Tensors with data, of all graphs of a file.
const TENSORS_MAX: usize = 100_000;
/// Graphs inside each other.
const DEPTH_MAX: usize = 8;
/// Axes of a tensor.
const AXES_MAX: usize = 64;
/// Bytes of all that is not the data of tensors: names, attributes, shapes. An
/// engine takes some fifty times as much for it.
const STRUCTURE_BYTES_MAX: usize = 32 << 20;
/// Bytes of a name, an operator or a domain.
const NAME_BYTES_MAX: usize = 4 << 10;
/// Bytes of what one node may make of constants.
const FOLDED_BYTES_MAX: u64 = 1 << 30;
/// Bytes of an element of what constants make, at most.
const ELEMENT_BYTES_MAX: u64 = 8;
/// Elements of constants that are looked at: shapes.
const SHAPE_ELEMENTS_MAX: usize = AXES_MAX;

/// Why a file is refused. Its author reads this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not protobuf, or cut off.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// There is no graph in it.
    #[error("it has no graph")]
    NoGraph,
    /// It has too much of something.
    #[error("it has more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Graphs are nested too deep.
    #[error("its graphs are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// The engine does not have the operator.
    #[error("node {node} is of {operator} in domain {domain}, which the engine does not have")]
    Operator {
        /// Its name, or its place.
        node: String,
        /// Its operator.
        operator: String,
        /// Its domain.
        domain: String,
    },
    /// A node would make something huge out of nothing.
    #[error("node {node} ({operator}) makes more than {FOLDED_BYTES_MAX} bytes of a constant")]
    Bomb {
        /// Its name, or its place.
        node: String,
        /// Its operator.
        operator: String,
    },
    /// A tensor's data and its shape do not fit.
    #[error("tensor {name} has a shape or a type that its data does not have")]
    Tensor {
        /// Its name.
        name: String,
    },
    /// A tensor's data is where it cannot be.
    #[error("tensor {name} keeps its data in {location:?}: {problem}")]
    External {
        /// Its name.
        name: String,
        /// Where it says that it is.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Nodes of all graphs.
    pub nodes: usize,
    /// Bytes of tensors, those in other files included.
    pub tensor_bytes: u64,
    /// Data that is in other files, in the order of the file.
    pub external: Vec<External>,
}

/// Data of a tensor in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The tensor.
    pub name: String,
    /// The file: a plain path beside the graph's own file.
    pub location: String,
    /// Where in it.
    pub offset: u64,
    /// How much of it.
    pub bytes: u64,
}

impl External {
    /// Where the data of a tensor is, given the words of its `external_data`.
    pub fn of(
        name: &str,
        dims: &[i64],
        element: i64,
        words: &[(&str, &str)],
    ) -> Result<Self, ScanError> {
        let wrong = || ScanError::Tensor { name: name.to_owned() };
        let (_, bytes) = measured(dims, element).ok_or_else(wrong)?;
        located(name, words, bytes)
    }
}

/// Reads an ONNX file. `has` says whether the engine has an operator, given its
/// domain, empty for that of ONNX itself, and its name.
pub fn scan(onnx: &[u8], has: &dyn Fn(&str, &str) -> bool) -> Result<Scan, ScanError> {
    let structure_bytes = onnx.len();
    let mut scanner = Scanner { has, found: Scan::default(), tensors: 0, structure_bytes };
    let mut graph = None;
    let mut fields = Fields::of(onnx);
    while let Some((field, value)) = fields.next()? {
        // ModelProto.graph. Readers of protobuf put several together, each its way.
        match field {
            7 => {
                let bytes = value.bytes()?;
                if graph.replace(bytes).is_some() {
                    return Err(ScanError::TooMany { what: "graphs", max: 1 });
                }
            }
            // training_info and functions: graphs that engines read, each its way.
            20 => return Err(ScanError::TooMany { what: "graphs for training", max: 0 }),
            25 => return Err(ScanError::TooMany { what: "functions", max: 0 }),
            _ => {}
        }
    }
    scanner.graph(graph.ok_or(ScanError::NoGraph)?, 1)?;
    match scanner.structure_bytes > limit("onnx_structure", STRUCTURE_BYTES_MAX) {
        true => {
            let max = STRUCTURE_BYTES_MAX;
            Err(ScanError::TooMany { what: "bytes beside the data of tensors", max })
        }
        false => Ok(scanner.found),
    }
}

struct Scanner<'a> {
    has: &'a dyn Fn(&str, &str) -> bool,
    found: Scan,
    tensors: usize,
    /// Bytes of the file that are not the data of a tensor.
    structure_bytes: usize,
}

/// Whole numbers that a graph has as constants, by name: shapes and such.
type Constants<'a> = HashMap<&'a str, Vec<i64>>;

impl<'b> Scanner<'_> {
    fn graph(&mut self, bytes: &'b [u8], depth: usize) -> Result<(), ScanError> {
        if depth > limit("onnx_depth", DEPTH_MAX) {
            return Err(ScanError::TooDeep);
        }
        let mut constants = Constants::new();
        let mut nodes = Vec::new();
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                // node
                1 => {
                    self.found.nodes += 1;
                    if self.found.nodes > limit("onnx_nodes", NODES_MAX) {
                        return Err(ScanError::TooMany { what: "nodes", max: NODES_MAX });
                    }
                    nodes.push(self.node(value.bytes()?, nodes.len(), depth, &mut constants)?);
                }
                // initializer
                5 => {
                    let tensor = self.tensor(value.bytes()?)?;
                    if let Some(integers) = tensor.integers {
                        constants.insert(tensor.name, integers);
                    }
                }
                // sparse_initializer
                15 => return Err(ScanError::TooMany { what: "sparse tensors", max: 0 }),
                _ => {}
            }
        }
        nodes.iter().try_for_each(|node| node.check(&constants))
    }

    fn node(
        &mut self,
        bytes: &'b [u8],
        place: usize,
        depth: usize,
        constants: &mut Constants<'b>,
    ) -> Result<Node<'b>, ScanError> {
        let mut node = Node { place, ..Node::default() };
        let mut output = "";
        let mut value_of = None;
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                // input: the first ones say how large things become
                1 if node.inputs.len() < 4 => node.inputs.push(name(value)?),
                // output
                2 if output.is_empty() => output = name(value)?,
                3 => node.name = name(value)?,
                4 => node.operator = name(value)?,
                7 => node.domain = name(value)?,
                // attribute
                5 => {
                    if let Some(integers) = self.attribute(value.bytes()?, depth)? {
                        value_of = Some(integers);
                    }
                }
                _ => {}
            }
        }
        let domain = if node.domain == "ai.onnx" { "" } else { node.domain };
        if !(self.has)(domain, node.operator) {
            return Err(ScanError::Operator {
                node: node.label(),
                operator: node.operator.to_owned(),
                domain: if domain.is_empty() { "ai.onnx" } else { domain }.to_owned(),
            });
        }
        if let (true, "Constant", Some(integers)) = (domain.is_empty(), node.operator, value_of) {
            constants.insert(output, integers);
        }
        Ok(node)
    }

    /// The whole numbers that an attribute holds, if it holds some.
    fn attribute(&mut self, bytes: &'b [u8], depth: usize) -> Result<Option<Vec<i64>>, ScanError> {
        let mut integers = None;
        let (mut tensors, mut graphs) = (0, 0);
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            // t and g, of which readers of protobuf put several together.
            tensors += usize::from(field == 5);
            graphs += usize::from(field == 6);
            if tensors > 1 || graphs > 1 {
                return Err(ScanError::TooMany { what: "values in an attribute", max: 1 });
            }
            match field {
                // i
                3 => integers = Some(vec![value.integer()?]),
                // t, tensors
                5 | 10 => {
                    let tensor = self.tensor(value.bytes()?)?;
                    integers = tensor.integers.or(integers);
                }
                // g, graphs
                6 | 11 => self.graph(value.bytes()?, depth + 1)?,
                // ints
                8 => {
                    let list = integers.get_or_insert_with(Vec::new);
                    value.integers(|number| keep(list, number))?;
                }
                // sparse_tensor, sparse_tensors
                22 | 23 => return Err(ScanError::TooMany { what: "sparse tensors", max: 0 }),
                _ => {}
            }
        }
        Ok(integers.filter(|list| list.len() <= SHAPE_ELEMENTS_MAX))
    }

    fn tensor(&mut self, bytes: &'b [u8]) -> Result<Tensor<'b>, ScanError> {
        self.tensors += 1;
        if self.tensors > limit("onnx_tensors", TENSORS_MAX) {
            return Err(ScanError::TooMany { what: "tensors", max: TENSORS_MAX });
        }
        let mut dims = Vec::new();
        let mut element = 0;
        let mut tensor = Tensor::default();
        let (mut raw, mut numbers) = (&[][..], 0);
        let mut external = Vec::new();
        let mut is_external = false;
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => value.integers(|axis| keep(&mut dims, axis))?,
                2 => element = value.integer()?,
                8 => tensor.name = name(value)?,
                // raw_data
                9 => raw = value.bytes()?,
                // float_data, double_data: always packed by who writes them
                4 | 10 => numbers += self.data(value)?,
                // int32_data, int64_data, uint64_data
                5 | 7 | 11 => {
                    numbers += self.data(value)?;
                    let list = tensor.integers.get_or_insert_with(Vec::new);
                    value.integers(|number| keep(list, number))?;
                }
                // external_data: where it is, by words
                13 => external.push(pair(value.bytes()?)?),
                // data_location: 1 is EXTERNAL
                14 => is_external |= value.integer()? == 1,
                _ => {}
            }
        }
        let wrong = || ScanError::Tensor { name: tensor.name.to_owned() };
        let (elements, bytes) = measured(&dims, element).ok_or_else(wrong)?;
        self.found.tensor_bytes = self.found.tensor_bytes.saturating_add(bytes);
        if is_external || !external.is_empty() {
            self.found.external.push(located(tensor.name, &external, bytes)?);
            return Ok(Tensor { integers: None, ..tensor });
        }
        let is_whole = match raw.is_empty() {
            false => raw.len() as u64 == bytes,
            // Of texts there is nothing to count; of numbers each has a byte.
            true => element == STRING || elements <= numbers as u64,
        };
        if !is_whole {
            return Err(wrong());
        }
        self.structure_bytes = self.structure_bytes.saturating_sub(raw.len());
        if element == INT64 && !raw.is_empty() && elements <= SHAPE_ELEMENTS_MAX as u64 {
            let words = raw.as_chunks().0;
            tensor.integers = Some(words.iter().map(|word| i64::from_le_bytes(*word)).collect());
        }
        tensor.integers = tensor.integers.filter(|list| list.len() as u64 == elements);
        Ok(tensor)
    }

    /// Bytes of a repeated number, which are data.
    fn data(&mut self, value: Value<'_>) -> Result<usize, ScanError> {
        match value {
            Value::Bytes(bytes) => {
                self.structure_bytes = self.structure_bytes.saturating_sub(bytes.len());
                Ok(bytes.len())
            }
            Value::Varint(_) | Value::Fixed(_) => Ok(1),
        }
    }
}

#[derive(Default)]
struct Tensor<'a> {
    name: &'a str,
    /// Its elements, where they are few whole numbers.
    integers: Option<Vec<i64>>,
}

#[derive(Default)]
struct Node<'a> {
    /// Among those of its graph.
    place: usize,
    name: &'a str,
    operator: &'a str,
    domain: &'a str,
    inputs: Vec<&'a str>,
}

impl Node<'_> {
    fn label(&self) -> String {
        match self.name {
            "" => format!("number {}", self.place + 1),
            name => format!("{name:?}"),
        }
    }

    /// Whether what it makes of constants is of a size that can be.
    fn check(&self, constants: &Constants<'_>) -> Result<(), ScanError> {
        let constant = |place: usize| constants.get(*self.inputs.get(place)?);
        let product = |list: &Vec<i64>| elements(list).unwrap_or(u64::MAX);
        let made = match self.operator {
            "ConstantOfShape" => constant(0).map(product),
            "Expand" | "Tile" => constant(1).map(product),
            "Resize" | "Upsample" => constant(3).map(product),
            "OneHot" => constant(1).map(product),
            "Pad" => constant(1).and_then(|pads| pads.iter().copied().max()).map(i64::unsigned_abs),
            "Range" => match (constant(0), constant(1), constant(2)) {
                (Some(start), Some(limit), Some(step)) => range(start, limit, step),
                _ => None,
            },
            _ => None,
        };
        let bytes = made.unwrap_or(0).saturating_mul(ELEMENT_BYTES_MAX);
        match bytes > limit("onnx_folded", FOLDED_BYTES_MAX) {
            true => Err(ScanError::Bomb { node: self.label(), operator: self.operator.to_owned() }),
            false => Ok(()),
        }
    }
}

/// How many numbers there are from one to another.
fn range(start: &[i64], limit: &[i64], step: &[i64]) -> Option<u64> {
    let ([start], [limit], [step]) = (start, limit, step) else { return None };
    let length = (i128::from(*limit) - i128::from(*start)).checked_div(i128::from(*step))?;
    Some(u64::try_from(length.max(0)).unwrap_or(u64::MAX))
}

/// Adds a number to those of a shape; of more than a shape has, one is enough.
fn keep(list: &mut Vec<i64>, number: i64) {
    if list.len() <= SHAPE_ELEMENTS_MAX {
        list.push(number);
    }
}

/// The product of the lengths of axes, where they are lengths and it is a number.
fn elements(axes: &[i64]) -> Option<u64> {
    if axes.len() > AXES_MAX {
        return None;
    }
    // A length of none does not make the others smaller: an engine may multiply
    // them first.
    let lengths = axes.iter().map(|axis| u64::try_from(*axis).ok());
    let product =
        lengths.clone().try_fold(1_u64, |product, axis| product.checked_mul(axis?.max(1)));
    let has_none = axes.contains(&0);
    product.map(|product| if has_none { 0 } else { product })
}

/// `TensorProto.DataType`.
const INT64: i64 = 7;
const STRING: i64 = 8;

/// Elements of a tensor and bytes of them, where both are numbers.
fn measured(dims: &[i64], element: i64) -> Option<(u64, u64)> {
    let elements = elements(dims)?;
    Some((elements, elements.checked_mul(bits(element)?)?.div_ceil(8)))
}

/// Bits of an element. Texts have none that could be counted.
fn bits(element: i64) -> Option<u64> {
    Some(match element {
        STRING => 0,
        // UINT4, INT4, FLOAT4E2M1
        21..=23 => 4,
        // UINT8, INT8, BOOL, and the four of FLOAT8
        2 | 3 | 9 | 17..=20 => 8,
        // UINT16, INT16, FLOAT16, BFLOAT16
        4 | 5 | 10 | 16 => 16,
        // FLOAT, INT32, UINT32
        1 | 6 | 12 => 32,
        // and DOUBLE, UINT64, COMPLEX64
        INT64 | 11 | 13 | 14 => 64,
        // COMPLEX128
        15 => 128,
        _ => return None,
    })
}

fn name<'a>(value: Value<'a>) -> Result<&'a str, ScanError> {
    let text = value.text()?;
    match text.len() > limit("onnx_name", NAME_BYTES_MAX) {
        true => Err(ScanError::TooMany { what: "bytes in a name", max: NAME_BYTES_MAX }),
        false => Ok(text),
    }
}

/// `StringStringEntryProto`.
fn pair(bytes: &[u8]) -> Result<(&str, &str), ScanError> {
    let (mut key, mut text) = ("", "");
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => key = name(value)?,
            2 => text = name(value)?,
            _ => {}
        }
    }
    Ok((key, text))
}

/// Where a tensor of so many bytes says that it is.
fn located(name: &str, words: &[(&str, &str)], bytes: u64) -> Result<External, ScanError> {
    let word = |key: &str| words.iter().find(|(said, _)| *said == key).map(|(_, text)| *text);
    let location = word("location").unwrap_or_default();
    let wrong = |problem: &str| ScanError::External {
        name: name.to_owned(),
        location: location.to_owned(),
        problem: problem.to_owned(),
    };
    if !is_plain(location) {
        return Err(wrong("only a plain name of a file beside it can be"));
    }
    let number = |key: &str| word(key).map(|text| text.parse::<u64>());
    let offset = number("offset").unwrap_or(Ok(0));
    let offset = offset.map_err(|_| wrong("its offset is no number"))?;
    match number("length") {
        None => {}
        Some(Ok(length)) if length == bytes => {}
        Some(_) => return Err(wrong("its length is not that of the tensor")),
    }
    Ok(External { name: name.to_owned(), location: location.to_owned(), offset, bytes })
}

/// Whether a location leads nowhere else, on any machine.
fn is_plain(location: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    location.split('/').all(is_part)
        && !location.chars().any(|letter| letter.is_control() || letter == '\\' || letter == ':')
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
