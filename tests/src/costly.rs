//! Components that are small and cost much to compile.
//!
//! Each is a good component with one more module in it that nothing refers to,
//! and that is compiled all the same.

/// Sections of modules and components, as the binary format numbers them.
const CUSTOM: u8 = 0;
const TYPES: u8 = 1;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;
const CORE_MODULE: u8 = 1;

/// Takes some six gigabytes at once: a compiler keeps, for each local variable, a
/// place for each block of the function.
pub fn hungry_to_compile(component: &[u8]) -> Vec<u8> {
    with_places(component, 20_000, 40_000)
}

/// The same, of 880 MiB: less than compiling may take.
pub fn large_to_compile(component: &[u8]) -> Vec<u8> {
    with_places(component, 5_000, 22_000)
}

fn with_places(component: &[u8], blocks: usize, locals: u32) -> Vec<u8> {
    // block; i32.const 0; br_if 0; end
    let mut body = [0x02, 0x40, 0x41, 0x00, 0x0d, 0x00, 0x0b].repeat(blocks);
    for local in 0..locals {
        // i32.const 0; local.set
        body.extend([0x41, 0x00, 0x21]);
        body.extend(leb(local));
    }
    with_module(component, &body, locals)
}

/// Takes more than a minute where each value is given the best register, and less than
/// a second in one pass: one loop of straight code with more values than registers, all
/// of which live from round to round.
pub fn slow_to_give_registers(component: &[u8]) -> Vec<u8> {
    let (sums, locals) = (45_000_u32, 12_000);
    // loop
    let mut body = vec![0x03, 0x40];
    for sum in 0..sums {
        add(&mut body, sum % locals, (sum * 7 + 3) % locals, (sum * 13 + 5) % locals);
    }
    // local.get 0; br_if 0; end
    body.extend([0x20, 0x00, 0x0d, 0x00, 0x0b]);
    with_module(component, &body, locals)
}

/// Takes more than a minute in either way: one jump to each of thousands of blocks, and
/// to each goes the value of every variable.
pub fn slow_in_either_way(component: &[u8]) -> Vec<u8> {
    let (blocks, locals) = (10_000_u32, 500);
    // loop; then a block for each target
    let mut body = vec![0x03, 0x40];
    body.extend([0x02, 0x40].repeat(blocks as usize));
    // local.get 0; br_table
    body.extend([0x20, 0x00, 0x0e]);
    body.extend(leb(blocks - 1));
    body.extend((0..blocks).flat_map(leb));
    for block in 0..blocks {
        // end
        body.push(0x0b);
        add(&mut body, block % locals, (block * 7 + 3) % locals, (block * 13 + 5) % locals);
    }
    // local.get 0; br_if 0; end
    body.extend([0x20, 0x00, 0x0d, 0x00, 0x0b]);
    with_module(component, &body, locals)
}

/// Two local variables' sum becomes the value of a third.
fn add(body: &mut Vec<u8>, one: u32, other: u32, sum: u32) {
    // local.get; local.get; i32.add; local.set
    body.push(0x20);
    body.extend(leb(one));
    body.push(0x20);
    body.extend(leb(other));
    body.extend([0x6a, 0x21]);
    body.extend(leb(sum));
}

/// Takes seconds: values that live across thousands of blocks of one loop.
pub fn slow_to_compile(component: &[u8]) -> Vec<u8> {
    let (blocks, locals) = (20_000_u32, 500);
    // loop
    let mut body = vec![0x03, 0x40];
    for block in 0..blocks {
        let (one, other) = (leb(block % locals), leb((block * 7 + 3) % locals));
        // block; local.get; br_if 0; local.get; local.get; i32.add; local.set; end
        body.extend([0x02, 0x40, 0x20]);
        body.extend(&one);
        body.extend([0x0d, 0x00, 0x20]);
        body.extend(&one);
        body.push(0x20);
        body.extend(&other);
        body.extend([0x6a, 0x21]);
        body.extend(&other);
        body.push(0x0b);
    }
    // local.get 0; br_if 0; end
    body.extend([0x20, 0x00, 0x0d, 0x00, 0x0b]);
    with_module(component, &body, locals)
}

/// A component with one more section of so many bytes that means nothing.
pub fn with_custom_section(component: &[u8], bytes: usize) -> Vec<u8> {
    let mut content = vec![4];
    content.extend(b"name");
    content.resize(content.len() + bytes, 0x80);
    let mut component = component.to_vec();
    component.extend(section(CUSTOM, &content));
    component
}

/// A component with one more module of one function.
fn with_module(component: &[u8], body: &[u8], locals: u32) -> Vec<u8> {
    let mut function = leb(1);
    function.extend(leb(locals));
    // Of the type i32.
    function.push(0x7f);
    function.extend(body);
    function.push(0x0b);
    let mut code = leb(1);
    code.extend(leb(function.len() as u32));
    code.extend(function);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend(section(TYPES, &[1, 0x60, 0, 0]));
    module.extend(section(FUNCTIONS, &[1, 0]));
    module.extend(section(CODE, &code));
    let mut component = component.to_vec();
    component.extend(section(CORE_MODULE, &module));
    component
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut section = vec![id];
    section.extend(leb(content.len() as u32));
    section.extend(content);
    section
}

/// An unsigned number in LEB128.
fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        match number {
            0 => {
                bytes.push(low);
                return bytes;
            }
            _ => bytes.push(low | 0x80),
        }
    }
}
