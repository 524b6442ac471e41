//! From an encoded picture to what the network sees: `SIDE` by `SIDE` cells,
//! light ink on a dark ground, from 0 to 1. `training/picture.py` is the same
//! arithmetic; a change belongs in both.
//!
//! Rows are added up as they are decoded, so a picture costs little more
//! memory than its decoder does, and its size is checked before that starts.

use std::io::Cursor;
use std::ops::Range;

use png::Transformations;
use ringfence_guest::Error;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Cells to a side.
pub(crate) const SIDE: usize = 8;

/// Row by row.
pub(crate) type Cells = [f32; SIDE * SIDE];

/// Larger pictures are refused. The greediest decoder (a progressive JPEG of
/// four channels) takes 11 bytes for each pixel, and that must fit into the
/// memory that config.yaml asks for.
const PIXELS_MAX: u64 = 1 << 24;

/// A picture whose lightest and darkest cells differ by less shows nothing.
const CONTRAST_MIN: f32 = 0.03;

const PNG_MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG_MAGIC: &[u8] = b"\xff\xd8\xff";

/// Decodes a PNG or JPEG file and reduces it to cells.
pub(crate) fn cells(file: &[u8]) -> Result<Cells, Error> {
    let grid = if file.starts_with(PNG_MAGIC) {
        png(file)?
    } else if file.starts_with(JPEG_MAGIC) {
        jpeg(file)?
    } else if file.is_empty() {
        return Err(Error::invalid_argument(
            "the image is empty; send the bytes of a PNG or JPEG file",
        ));
    } else {
        return Err(Error::invalid_argument(
            "the image is neither PNG nor JPEG; send the bytes of a PNG or JPEG file",
        ));
    };
    grid.normalised()
}

fn png(file: &[u8]) -> Result<Grid, Error> {
    let broken = |error: png::DecodingError| broken("PNG", &error);
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    // Palettes, small depths, transparent colours and 16 bits all become 8-bit
    // samples of 1 to 4 channels.
    decoder.set_transformations(Transformations::normalize_to_color8());
    let header = decoder.read_header_info().map_err(broken)?;
    let (width, height, interlaced) = (header.width, header.height, header.interlaced);
    let mut grid = Grid::new(width as usize, height as usize)?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let channels = reader.output_color_type().0.samples();
    if interlaced {
        let mut frame = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
        reader.next_frame(&mut frame).map_err(broken)?;
        for row in frame.chunks_exact(width as usize * channels) {
            grid.add_row(row, channels);
        }
    } else {
        while let Some(row) = reader.next_row().map_err(broken)? {
            grid.add_row(row.data(), channels);
        }
    }
    Ok(grid)
}

fn jpeg(file: &[u8]) -> Result<Grid, Error> {
    let broken = |error| broken("JPEG", &error);
    // A picture that was cut off must not be taken for a whole one.
    let options = DecoderOptions::default().set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().ok_or_else(too_large)?;
    let mut grid = Grid::new(width, height)?;
    // The first channel of most files is luma: the others need not be decoded.
    let wanted = match decoder.input_colorspace() {
        Some(ColorSpace::Luma | ColorSpace::YCbCr) => ColorSpace::Luma,
        Some(_) | None => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    let channels = wanted.num_components();
    let pixels = decoder.decode().map_err(broken)?;
    for row in pixels.chunks_exact(width * channels) {
        grid.add_row(row, channels);
    }
    Ok(grid)
}

fn broken(format: &str, error: &dyn std::fmt::Display) -> Error {
    Error::invalid_argument(format!(
        "the {format} file is broken or cut off ({error}); send a whole file"
    ))
}

fn too_large() -> Error {
    Error::invalid_argument(format!(
        "the picture has more than {PIXELS_MAX} pixels; scale it down, {SIDE} by {SIDE} is enough"
    ))
}

/// The cells of a picture whose rows are still coming in.
struct Grid {
    columns: Vec<Share>,
    rows: Vec<Share>,
    next_row: usize,
    /// Per cell: luma times alpha, and alpha, both averaged over its area.
    ink: [[f32; SIDE]; SIDE],
    cover: [[f32; SIDE]; SIDE],
}

impl Grid {
    fn new(width: usize, height: usize) -> Result<Self, Error> {
        if width == 0 || height == 0 {
            return Err(Error::invalid_argument(
                "the picture has no pixels; send one that shows a digit",
            ));
        }
        if (width as u64).saturating_mul(height as u64) > PIXELS_MAX {
            return Err(too_large().with_info("width", width).with_info("height", height));
        }
        Ok(Grid {
            columns: shares(width),
            rows: shares(height),
            next_row: 0,
            ink: [[0.0; SIDE]; SIDE],
            cover: [[0.0; SIDE]; SIDE],
        })
    }

    /// Adds the next row: 8-bit samples, `channels` to a pixel (grey, grey and
    /// alpha, RGB, RGBA).
    fn add_row(&mut self, samples: &[u8], channels: usize) {
        let y = self.next_row;
        self.next_row += 1;
        for (cell, column) in self.columns.iter().enumerate() {
            let range = column.pixels.start * channels..column.pixels.end * channels;
            let pixels = samples.get(range).unwrap_or_default();
            let (ink, cover) = sums(pixels, channels, &column.weights);
            for ((row, inks), covers) in self.rows.iter().zip(&mut self.ink).zip(&mut self.cover) {
                let Some(weight) = row.weight(y) else {
                    continue;
                };
                if let (Some(to_ink), Some(to_cover)) = (inks.get_mut(cell), covers.get_mut(cell)) {
                    *to_ink += weight * ink;
                    *to_cover += weight * cover;
                }
            }
        }
    }

    /// Lays the ink on a ground, makes it the lighter of the two, and
    /// stretches the contrast from 0 to 1.
    fn normalised(&self) -> Result<Cells, Error> {
        let total = |cells: &[[f32; SIDE]; SIDE]| cells.as_flattened().iter().sum::<f32>();
        // Transparent parts take the ground that the opaque parts stand out
        // against.
        let ground = if total(&self.ink) > 0.5 * total(&self.cover) { 0.0 } else { 1.0 };
        let mut cells = [0.0; SIDE * SIDE];
        let inks = self.ink.as_flattened().iter();
        for ((cell, ink), cover) in cells.iter_mut().zip(inks).zip(self.cover.as_flattened()) {
            *cell = ink + (1.0 - cover) * ground;
        }
        let (mut inner, mut border) = (0.0, 0.0);
        for (index, cell) in cells.iter().enumerate() {
            let (y, x) = (index / SIDE, index % SIDE);
            if [y, x].iter().all(|at| (1..SIDE - 1).contains(at)) {
                inner += cell;
            } else {
                border += cell;
            }
        }
        const INNER: usize = (SIDE - 2) * (SIDE - 2);
        // A digit is in the middle: what the border is made of is the ground.
        if border / (SIDE * SIDE - INNER) as f32 > inner / INNER as f32 {
            for cell in &mut cells {
                *cell = 1.0 - *cell;
            }
        }
        let low = cells.iter().copied().fold(f32::INFINITY, f32::min);
        let high = cells.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let contrast = high - low;
        if contrast < CONTRAST_MIN {
            return Err(Error::out_of_range(
                "the picture is of one even colour; send one in which a digit stands out",
            ));
        }
        for cell in &mut cells {
            *cell = (*cell - low) / contrast;
        }
        Ok(cells)
    }
}

/// Which pixels of an axis one cell covers, and how much of the cell each is.
struct Share {
    pixels: Range<usize>,
    weights: Vec<f32>,
}

impl Share {
    fn weight(&self, pixel: usize) -> Option<f32> {
        let offset = pixel.checked_sub(self.pixels.start)?;
        self.weights.get(offset).copied()
    }
}

/// The share of each cell along an axis of `length` pixels. In units of which
/// a pixel has `SIDE` and a cell `length`, all edges are whole numbers.
fn shares(length: usize) -> Vec<Share> {
    (0..SIDE)
        .map(|cell| {
            let (low, high) = (cell * length, (cell + 1) * length);
            let pixels = low / SIDE..high.div_ceil(SIDE);
            let weights = pixels
                .clone()
                .map(|pixel| {
                    let overlap = high.min((pixel + 1) * SIDE) - low.max(pixel * SIDE);
                    overlap as f32 / length as f32
                })
                .collect();
            Share { pixels, weights }
        })
        .collect()
}

/// The weighted sums of luma times alpha and of alpha, both from 0 to 1.
fn sums(samples: &[u8], channels: usize, weights: &[f32]) -> (f32, f32) {
    let (mut ink, mut cover) = (0.0, 0.0);
    let grey = |y: &u8| f32::from(*y) / 255.0;
    let luma = |r: &u8, g: &u8, b: &u8| {
        (0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b)) / 255.0
    };
    for (pixel, weight) in samples.chunks_exact(channels).zip(weights) {
        let (light, alpha) = match pixel {
            [y] => (grey(y), 1.0),
            [y, a] => (grey(y), grey(a)),
            [r, g, b] => (luma(r, g, b), 1.0),
            [r, g, b, a] => (luma(r, g, b), grey(a)),
            // Neither decoder answers pixels of other sizes.
            _ => (0.0, 0.0),
        };
        ink += weight * light * alpha;
        cover += weight * alpha;
    }
    (ink, cover)
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
