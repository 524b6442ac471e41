//! Regions drawn on the image that they are of, for the author's eyes.
//!
//! Owns how a box looks. The image is the author's own, read on the author's
//! machine; a host decodes none.

use crate::proto::clarifai::api::{Data, Output, Region};
use anyhow::Context;
use image::{ImageFormat, ImageReader, Limits, Rgb, RgbImage};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Colours that are told apart, for one region after the other.
const COLOURS: [Rgb<u8>; 6] = [
    Rgb([230, 25, 75]),
    Rgb([60, 180, 75]),
    Rgb([0, 130, 200]),
    Rgb([255, 200, 0]),
    Rgb([145, 30, 180]),
    Rgb([0, 200, 200]),
];

/// Largest image that is drawn on, in pixels each way.
const SIDE_PIXELS_MAX: u32 = 16_384;
/// Most regions that are drawn.
const REGIONS_MAX: usize = 1000;
/// A line is this share of the longer side, and at least a pixel.
const LINE_SHARE: u32 = 256;

/// Draws the regions of all outputs on the image and writes it below the
/// folder's `target`. Returns where, or nothing where there are no regions.
pub(super) fn draw(
    dir: &Path,
    function: &str,
    image: &[u8],
    outputs: &[Output],
) -> anyhow::Result<Option<PathBuf>> {
    let mut boxes = Vec::new();
    for data in outputs.iter().filter_map(|output| output.data.as_ref()) {
        collect(data, &mut boxes);
    }
    if boxes.is_empty() {
        return Ok(None);
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_PIXELS_MAX);
    limits.max_image_height = Some(SIDE_PIXELS_MAX);
    let mut reader = ImageReader::new(Cursor::new(image)).with_guessed_format()?;
    reader.limits(limits);
    let mut drawing = reader.decode().context("cannot draw on the image")?.into_rgb8();
    for (bounds, colour) in boxes.into_iter().zip(COLOURS.iter().cycle()) {
        outline(&mut drawing, bounds, *colour);
    }
    let folder = dir.join("target").join("test");
    // A method's name may hold what a path must not.
    let name: String =
        function.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let path = folder.join(format!("{name}.png"));
    let cannot = || format!("cannot write {}", path.display());
    std::fs::create_dir_all(&folder).with_context(cannot)?;
    let mut bytes = Cursor::new(Vec::new());
    drawing.write_to(&mut bytes, ImageFormat::Png).with_context(cannot)?;
    std::fs::write(&path, bytes.into_inner()).with_context(cannot)?;
    Ok(Some(path))
}

/// The boxes of an output and of its parts, which nest no deeper than types.
fn collect(data: &Data, boxes: &mut Vec<[f32; 4]>) {
    let room = REGIONS_MAX.saturating_sub(boxes.len());
    boxes.extend(data.regions.iter().filter_map(bounds).take(room));
    for part in data.parts.iter().filter_map(|part| part.data.as_ref()) {
        collect(part, boxes);
    }
}

/// Top, left, bottom and right as fractions, where they are ones.
fn bounds(region: &Region) -> Option<[f32; 4]> {
    let b = region.region_info.as_ref()?.bounding_box?;
    let bounds = [b.top_row, b.left_col, b.bottom_row, b.right_col];
    let [top, left, bottom, right] = bounds;
    (bounds.iter().all(|edge| edge.is_finite()) && top <= bottom && left <= right).then_some(bounds)
}

fn outline(drawing: &mut RgbImage, [top, left, bottom, right]: [f32; 4], colour: Rgb<u8>) {
    let (width, height) = drawing.dimensions();
    let pixel = |fraction: f32, side: u32| {
        let last = side.saturating_sub(1);
        ((fraction.clamp(0.0, 1.0) * side as f32) as u32).min(last)
    };
    let (top, bottom) = (pixel(top, height), pixel(bottom, height));
    let (left, right) = (pixel(left, width), pixel(right, width));
    let line = (width.max(height) / LINE_SHARE).max(1);
    let last = line - 1;
    // Four edges, as wide as a line or as what there is.
    for (rows, columns) in [
        (top..=bottom.min(top + last), left..=right),
        (top.max(bottom.saturating_sub(last))..=bottom, left..=right),
        (top..=bottom, left..=right.min(left + last)),
        (top..=bottom, left.max(right.saturating_sub(last))..=right),
    ] {
        for y in rows {
            for x in columns.clone() {
                drawing.put_pixel(x, y, colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::clarifai::api::{BoundingBox, RegionInfo};

    fn output(boxes: &[[f32; 4]]) -> Output {
        let region = |[top_row, left_col, bottom_row, right_col]: &[f32; 4]| Region {
            region_info: Some(RegionInfo {
                bounding_box: Some(BoundingBox {
                    top_row: *top_row,
                    left_col: *left_col,
                    bottom_row: *bottom_row,
                    right_col: *right_col,
                }),
                ..RegionInfo::default()
            }),
            ..Region::default()
        };
        let data = Data { regions: boxes.iter().map(region).collect(), ..Data::default() };
        Output { data: Some(data), ..Output::default() }
    }

    fn white() -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let white = RgbImage::from_pixel(10, 20, Rgb([255; 3]));
        white.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_box_is_drawn_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let output = output(&[[0.25, 0.2, 0.5, 0.6]]);
        let path = draw(dir.path(), "a/b", &white(), &[output]).unwrap().unwrap();
        assert_eq!(path, dir.path().join("target/test/a_b.png"));
        let drawn = image::open(path).unwrap().into_rgb8();
        let coloured: Vec<(u32, u32)> = drawn
            .enumerate_pixels()
            .filter(|(_, _, pixel)| **pixel == COLOURS[0])
            .map(|(x, y, _)| (x, y))
            .collect();
        let corners = [(2, 5), (6, 5), (2, 10), (6, 10)];
        assert!(corners.iter().all(|corner| coloured.contains(corner)), "{coloured:?}");
        assert!(!coloured.contains(&(4, 7)), "it is filled");
        assert!(!coloured.contains(&(1, 5)) && !coloured.contains(&(7, 10)));
    }

    #[test]
    fn boxes_of_any_numbers_stay_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let strange = [
            [-1.0, -1.0, 9.0, 9.0],
            [f32::NAN, 0.0, 1.0, 1.0],
            [0.9, 0.9, 0.1, 0.1],
            [1.0, 1.0, 1.0, 1.0],
            [f32::NEG_INFINITY, 0.0, f32::INFINITY, 1.0],
        ];
        assert!(draw(dir.path(), "f", &white(), &[output(&strange)]).unwrap().is_some());
        assert!(draw(dir.path(), "f", &white(), &[output(&[])]).unwrap().is_none());
        assert!(draw(dir.path(), "f", b"no image", &[output(&strange)]).is_err());
    }
}
