use ringfence_guest::ErrorCode;

use super::*;

const SEVEN: &[u8] = include_bytes!("../held-out/seven.png");
const THREE: &[u8] = include_bytes!("../held-out/three.png");
const FOUR: &[u8] = include_bytes!("../held-out/four.jpg");
const FIVE: &[u8] = include_bytes!("../held-out/five.png");
const SHEET: &[u8] = include_bytes!("../held-out/sheet.png");
const LABELS: &str = include_str!("../held-out/sheet.txt");

/// The first scan of `digit` on the sheet, as cells.
fn scan(digit: char) -> Cells {
    let mut reader = png::Decoder::new(Cursor::new(SHEET)).read_info().unwrap();
    let mut sheet = vec![0; reader.output_buffer_size().unwrap()];
    let width = reader.next_frame(&mut sheet).unwrap().width as usize;
    let index = LABELS
        .chars()
        .filter(|label| !label.is_whitespace())
        .position(|label| label == digit)
        .unwrap();
    let (x, y) = (index * SIDE % width, index * SIDE / width * SIDE);
    let mut grid = Grid::new(SIDE, SIDE).unwrap();
    for row in y..y + SIDE {
        grid.add_row(&sheet[row * width + x..][..SIDE], 1);
    }
    grid.normalised().unwrap()
}

fn distance(a: &Cells, b: &Cells) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
}

/// A PNG file of one colour type.
fn encoded(width: u32, height: u32, color: png::ColorType, samples: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(samples).unwrap();
    writer.finish().unwrap();
    file
}

#[test]
fn a_scan_is_seen_as_it_is() {
    assert!(distance(&cells(THREE).unwrap(), &scan('3')) < 1e-6);
}

#[test]
fn a_large_dark_on_light_picture_is_seen_as_its_scan() {
    assert!(distance(&cells(SEVEN).unwrap(), &scan('7')) < 0.05);
}

#[test]
fn a_jpeg_and_ink_on_a_transparent_ground_are_seen_as_their_scans() {
    assert!(distance(&cells(FOUR).unwrap(), &scan('4')) < 0.05);
    assert!(distance(&cells(FIVE).unwrap(), &scan('5')) < 0.05);
}

#[test]
fn white_ink_on_a_transparent_ground_is_seen() {
    let alpha: Vec<u8> = scan('5').map(|cell| (cell * 255.0) as u8).to_vec();
    let samples: Vec<u8> = alpha.iter().flat_map(|&alpha| [255, alpha]).collect();
    let file = encoded(8, 8, png::ColorType::GrayscaleAlpha, &samples);
    assert!(distance(&cells(&file).unwrap(), &scan('5')) < 0.01);
}

#[test]
fn cells_hold_the_average_of_their_area() {
    for length in [1, 3, 7, 8, 9, 28, 300] {
        let mut covered = vec![0.0; length];
        for share in shares(length) {
            assert!((share.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            for (pixel, weight) in share.pixels.zip(share.weights) {
                covered[pixel] += weight * length as f32 / SIDE as f32;
            }
        }
        assert!(covered.iter().all(|sum| (sum - 1.0).abs() < 1e-4));
    }
}

#[test]
fn a_picture_smaller_than_the_grid_is_stretched() {
    let file = encoded(3, 1, png::ColorType::Grayscale, &[0, 255, 0]);
    let cells = cells(&file).unwrap();
    assert_eq!(cells[0], 0.0);
    assert_eq!(cells[4], 1.0);
}

#[test]
fn every_cut_of_a_file_is_answered() {
    for file in [SEVEN, THREE, FOUR, FIVE, SHEET] {
        // Every cut of the small files, some of the large ones.
        for end in (0..file.len() - 12).step_by(file.len().div_ceil(500)) {
            if let Err(error) = cells(&file[..end]) {
                assert_eq!(error.code(), ErrorCode::InvalidArgument);
            }
        }
        let error = cells(&file[..file.len() / 2]).unwrap_err();
        assert!(error.message().contains("broken or cut off"), "{error}");
    }
}

#[test]
fn every_flipped_byte_is_answered() {
    for file in [THREE, FIVE, FOUR] {
        for at in 0..file.len() {
            let mut file = file.to_vec();
            file[at] ^= 0x55;
            let _ = cells(&file);
        }
    }
}

#[test]
fn a_huge_picture_is_refused_by_its_header() {
    // Only a header: decoding would have to fail in another way.
    let mut file = encoded(1, 1, png::ColorType::Grayscale, &[0]);
    file[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let mut crc = crc32(&file[12..29]).to_be_bytes();
    file[29..33].swap_with_slice(&mut crc);
    file.truncate(33);
    let error = cells(&file).unwrap_err();
    assert!(error.message().contains("scale it down"), "{error}");

    // The frame header of the JPEG: height and width stand 5 bytes after it.
    let mut file = FOUR.to_vec();
    let frame = file.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    file[frame + 5..frame + 9].copy_from_slice(&[0x30, 0, 0x30, 0]);
    let error = cells(&file).unwrap_err();
    assert!(error.message().contains("scale it down"), "{error}");
}

/// CRC-32 as PNG asks for it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn what_is_no_picture_is_refused_with_what_to_send() {
    for (file, words) in [(&b""[..], "empty"), (b"seven", "neither PNG nor JPEG")] {
        let error = cells(file).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.message().contains(words), "{error}");
        assert!(error.message().contains("send"), "{error}");
    }
}

#[test]
fn an_even_picture_is_out_of_range() {
    let file = encoded(9, 9, png::ColorType::Rgb, &[200; 9 * 9 * 3]);
    assert_eq!(cells(&file).unwrap_err().code(), ErrorCode::OutOfRange);
}
