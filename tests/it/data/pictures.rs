//! Pictures from files of every kind, good and bad, through the reader; files of pictures and what Pillow makes of them come from
//! `tests/reference/pictures.py`.

use std::fs;

use flate2::Compression;
use flate2::write::GzEncoder;
use kiln::data::images::{
    self, Augment, Colour, Found, Grid, Idx, PictureBatches, Range, Reading, Shapes, Sheet, animate,
};
use kiln::data::source::Reason;
use kiln::device::Device;
use kiln::disk::Os;
use kiln::train::pictures::VaeTask;
use kiln::train::pictures::vae::VaeRecipe;
use kiln::train::run;
use safetensors::SafeTensors;

use super::*;

/// A tensor of bytes in the fixture.
fn stored(name: &str) -> Vec<u8> {
    static FILE: &[u8] = include_bytes!("../../fixtures/pictures.safetensors");
    let file = SafeTensors::deserialize(FILE).expect("the fixture is a safetensors file");
    file.tensor(name).unwrap_or_else(|_| panic!("the fixture has no {name}")).data().to_vec()
}

/// Names and contents.
type Files = Vec<(&'static str, Vec<u8>)>;

/// Files below a folder of their own.
fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let dir = TempDir::new().expect("a folder");
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, bytes).expect("written");
    }
    dir
}

fn open(dir: &TempDir) -> Result<Found> {
    images::open(dir.path(), &Reading::default())
}

fn grey_png(width: usize, height: usize, value: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&vec![value; width * height]).unwrap();
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    std::io::Write::write_all(&mut packed, bytes).unwrap();
    packed.finish().unwrap()
}

/// An IDX file whose values count.
fn idx(shape: &[usize]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, shape.len() as u8];
    shape.iter().for_each(|&length| bytes.extend((length as u32).to_be_bytes()));
    bytes.extend((0..shape.iter().product::<usize>()).map(|i| (i % 10) as u8));
    bytes
}

fn cifar(labels: &[u8]) -> Vec<u8> {
    labels
        .iter()
        .flat_map(|&label| std::iter::once(label).chain((0..3072).map(|i| (i / 1024 * 60 + i % 32) as u8)))
        .collect()
}

const IMAGES: &str = "train-images-idx3-ubyte";
const LABELS: &str = "train-labels-idx1-ubyte";

#[test]
fn what_pillow_reads_is_read_alike() {
    // The largest difference of a value: JPEG's inverse transform may be rounded, and colours be made larger, in several ways.
    let files = [
        ("png", "png", 0),
        ("png_grey", "png", 0),
        ("png_palette", "png", 0),
        ("png_bits", "png", 0),
        ("png_opaque", "png", 0),
        ("jpeg", "jpg", 3),
        ("jpeg_subsampled", "JPG", 6),
        ("jpeg_progressive", "jpeg", 6),
        ("jpeg_grey", "jpg", 1),
    ];
    for (name, ending, bound) in files {
        let want = stored(&format!("{name}.values"));
        let dir = folder(&[(&format!("a.{ending}"), stored(&format!("{name}.file")))]);
        let found = open(&dir).unwrap_or_else(|e| panic!("{name}: {e}"));
        let dims = found.train.dims();
        assert_eq!((dims.height, dims.width, dims.values()), (24, 40, want.len()), "{name}");
        let apart = found.train.get(0).iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(apart <= Some(bound), "{name}: {apart:?} apart");
        assert_eq!((found.skips.total(), found.train.classes()), (0, 0));
    }
}

#[test]
fn pictures_are_scaled_and_made_grey_as_pillow_does() {
    let dir = folder(&[("a.png", stored("png.file"))]);
    for size in [7, 16, 61] {
        let found = images::open(dir.path(), &Reading { size: Some(size), colour: None }).unwrap();
        let want = stored(&format!("scaled.{size}"));
        assert_eq!(found.train.dims().values(), want.len());
        // Pillow's weights are rounded to 2^-22, and rows are rounded before columns are scaled.
        let apart = found.train.get(0).iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(apart <= Some(1), "to {size}: {apart:?} apart");
    }
    let found = images::open(dir.path(), &Reading { size: None, colour: Some(Colour::Grey) }).unwrap();
    assert_eq!(found.train.get(0), stored("grey"));
    let grey = folder(&[("a.png", stored("png_grey.file"))]);
    let found = images::open(grey.path(), &Reading { size: None, colour: Some(Colour::Rgb) }).unwrap();
    assert_eq!(found.train.get(0)[..6], [stored("grey")[0], stored("grey")[1]].map(|v| [v; 3]).concat());
    assert!(images::open(grey.path(), &Reading { size: Some(3), colour: None }).is_err());
}

#[test]
fn folders_are_labels_and_what_cannot_be_read_in_them_is_counted() {
    let good = grey_png(40, 24, 7);
    let dir = folder(&[
        ("cat/1.png", good.clone()),
        ("cat/deeper/2.png", good.clone()),
        ("ant/9.png", stored("jpeg.file")),
        ("ant/b.png", stored("png_16.file")),
        ("ant/c.png", stored("png_transparent.file")),
        ("bee/d.jpg", stored("jpeg_cmyk.file")),
        ("bee/e.png", good[..good.len() / 2].to_vec()),
        ("bee/f.jpg", stored("jpeg.file")[..500].to_vec()),
        ("bee/g.png", b"not a picture".to_vec()),
        ("bee/h.png", Vec::new()),
        ("bee/i.gif", b"GIF89a".to_vec()),
        ("bee/.hidden.png", good.clone()),
    ]);
    let Found { train, held_out, skips } = open(&dir).unwrap();
    // One is coloured, and so all are.
    assert_eq!((train.len(), train.dims().channels, held_out.is_none()), (3, 3, true));
    assert_eq!(train.names(), ["ant", "bee", "cat"]);
    assert_eq!((0..3).map(|i| train.label(i)).collect::<Vec<_>>(), [Some(0), Some(2), Some(2)]);
    assert_eq!(train.get(1), [7; 24 * 40 * 3]);
    let want =
        [(Reason::OtherKind, 1), (Reason::Hidden, 1), (Reason::Damaged, 4), (Reason::Deep, 1), (Reason::Print, 1)];
    let want = BTreeMap::from_iter(want.into_iter().chain([(Reason::Transparent, 1)]));
    assert_eq!(skips.counts, want, "{skips:?}");

    let dir =
        folder(&[("train/b/1.png", good.clone()), ("test/a/1.png", good.clone()), ("contact-sheet.png", good.clone())]);
    let Found { train, held_out, .. } = open(&dir).unwrap();
    let held_out = held_out.unwrap();
    assert_eq!((train.len(), train.label(0), held_out.label(0)), (1, Some(1), Some(0)));
    assert_eq!(held_out.names(), ["a", "b"]);
}

/// What cannot be used is one error that names the file, says what is wrong with it, and what to do.
#[test]
fn bad_pictures_are_errors_that_name_them() {
    let (small, large) = (grey_png(28, 28, 0), grey_png(32, 32, 0));
    let packed = gz(&idx(&[3, 4, 5]));
    let cases: Vec<(&str, Files, [&str; 3])> = vec![
        ("a folder without pictures", vec![("notes.txt", b"x".to_vec())], ["holds no pictures", "notes.txt", ".png"]),
        ("mixed sizes", vec![("1.png", small.clone()), ("2.png", large)], ["2.png", "28 x 28, as", "--size 28"]),
        (
            "pictures beside classes",
            vec![("1.png", small.clone()), ("a/2.png", small)],
            ["1.png", "a class, as a", "move it"],
        ),
        ("16 bits alone", vec![("a.png", stored("png_16.file"))], ["a.png", "16 bits", "8 bits a channel"]),
        ("CMYK alone", vec![("a.jpg", stored("jpeg_cmyk.file"))], ["a.jpg", "CMYK", "convert it to RGB"]),
        ("alpha alone", vec![("a.png", stored("png_transparent.file"))], ["a.png", "not opaque", "alpha"]),
        (
            "only damaged ones",
            vec![("b/a.png", b"x".to_vec()), ("b/b.png", vec![])],
            ["a.png", "neither a PNG", "none of the 2"],
        ),
        ("wrong magic", vec![(IMAGES, b"\x89PNG....".to_vec())], [IMAGES, "bytes 0 to 3", "IDX"]),
        ("floats", vec![(IMAGES, [&[0, 0, 13, 3], &idx(&[1, 1, 1])[4..]].concat())], [IMAGES, "unsigned bytes", "IDX"]),
        ("zero images", vec![(IMAGES, idx(&[0, 28, 28]))], [IMAGES, "dimension 0", "IDX"]),
        ("too short", vec![(IMAGES, idx(&[3, 4, 5])[..40].to_vec())], [IMAGES, "60 bytes", "IDX"]),
        (
            "truncated gz",
            vec![("train-images-idx3-ubyte.gz", packed[..packed.len() - 9].to_vec())],
            [".gz", "end of the file", "IDX"],
        ),
        ("labels as pictures", vec![(IMAGES, idx(&[12]))], [IMAGES, "(N, height, width)", "found beside"]),
        ("five channels", vec![(IMAGES, idx(&[2, 4, 4, 5]))], [IMAGES, "channels", "[2, 4, 4, 5]"]),
        ("fewer labels", vec![(IMAGES, idx(&[3, 4, 5])), (LABELS, idx(&[2]))], [LABELS, "3 labels", "take it away"]),
        (
            "names that are too few",
            vec![(IMAGES, idx(&[3, 4, 5])), (LABELS, idx(&[3])), ("label-names.txt", b"a\nb\n".to_vec())],
            ["label-names.txt", "3 names", "one a line"],
        ),
        (
            "two sets",
            vec![(IMAGES, idx(&[3, 4, 5])), ("other-images-idx3-ubyte", idx(&[3, 4, 5]))],
            ["other-images", "at most one held out", "instead of the folder"],
        ),
        (
            "CIFAR cut short",
            vec![("data_batch_1.bin", cifar(&[1, 2])[..6000].to_vec())],
            ["data_batch_1.bin", "3073", "binary version"],
        ),
        ("CIFAR-100", vec![("data_batch_1.bin", cifar(&[1, 77]))], ["picture 1", "0 to 9", "binary version"]),
        (
            "an archive that is none",
            vec![("cifar-10-binary.tar.gz", b"x".to_vec())],
            ["tar.gz", "whole", "kiln data get"],
        ),
        (
            "an archive cut short",
            vec![("cifar-10-binary.tar.gz", gz(&[7; 3000])[..20].to_vec())],
            ["tar.gz", "whole", "kiln data get"],
        ),
        (
            "an archive of nothing",
            vec![("cifar-10-binary.tar.gz", gz(&[0; 1024]))],
            ["tar.gz", "data_batch_1.bin", "CIFAR"],
        ),
    ];
    for (name, files, says) in cases {
        let dir = folder(&files);
        let error = open(&dir).expect_err(name);
        let text = format!("{error} hint: {}", error.hint().unwrap_or_else(|| panic!("{name}: no hint")));
        assert!(text.contains(&*dir.path().to_string_lossy()), "{name}: {text}");
        says.iter().for_each(|part| assert!(text.contains(part), "{name}: {part:?} is not in {text:?}"));
        // A run on them says the same, and leaves nothing.
        let runs = TempDir::new().expect("a folder");
        let set = [format!("data.path={:?}", dir.path()), format!("run.dir={:?}", runs.path())];
        let recipe = VaeRecipe::from_toml("", Path::new("recipe"), &set).expect("a recipe");
        let refused = run::<VaeTask>(&Os, &recipe, None, &Device::cpu(1).expect("a CPU"), &mut ()).expect_err(name);
        assert_eq!(refused.to_string(), error.to_string(), "{name}");
        assert!(fs::read_dir(runs.path()).expect("a folder").next().is_none(), "{name}: something is left");
    }
    for (path, says) in [("none", "none"), ("a.png", "a single picture"), ("a.xyz", "bytes 0 to 3")] {
        let dir = folder(&[("a.png", grey_png(8, 8, 0)), ("a.xyz", b"text".to_vec())]);
        assert_says(images::open(dir.path().join(path), &Reading::default()), &[says]);
    }
}

#[test]
fn idx_files_and_cifars_bring_their_labels_and_test_pictures() {
    let (train, test) = (idx(&[3, 4, 5]), idx(&[2, 4, 5]));
    let dir = folder(&[
        ("train-images-idx3-ubyte.gz", gz(&train)),
        (IMAGES, train),
        (LABELS, idx(&[3])),
        ("t10k-images-idx3-ubyte", test),
        ("t10k-labels-idx1-ubyte.gz", gz(&idx(&[2]))),
        ("label-names.txt", b"zero\none\ntwo\nthree\n".to_vec()),
    ]);
    let Found { train, held_out, .. } = open(&dir).unwrap();
    assert_eq!((train.len(), train.label(2), train.classes(), held_out.unwrap().len()), (3, Some(2), 4, 2));
    assert_eq!((train.names()[2].as_str(), train.get(1)[..3].to_vec()), ("two", vec![0, 1, 2]));
    let alone = images::open(dir.path().join("t10k-images-idx3-ubyte"), &Reading::default()).unwrap();
    assert_eq!((alone.train.len(), alone.held_out.is_none(), alone.train.label(1)), (2, true, Some(1)));

    let (one, two, test) = (cifar(&[3, 9]), cifar(&[4]), cifar(&[0]));
    let dir = folder(&[
        ("data_batch_2.bin", two.clone()),
        ("data_batch_1.bin", one.clone()),
        ("test_batch.bin", test.clone()),
    ]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [("test_batch.bin", &test), ("data_batch_2.bin", &two), ("data_batch_1.bin", &one)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("cifar-10-batches-bin/{name}"), &bytes[..]).unwrap();
    }
    let packed = folder(&[("cifar-10-binary.tar.gz", gz(&archive.into_inner().unwrap()))]);
    let paths = [dir.path().to_owned(), packed.path().to_owned(), packed.path().join("cifar-10-binary.tar.gz")];
    for path in paths {
        let Found { train, held_out, .. } = images::open(path, &Reading::default()).unwrap();
        assert_eq!((0..3).map(|i| train.label(i)).collect::<Vec<_>>(), [Some(3), Some(9), Some(4)]);
        // Planes become pixels.
        assert_eq!(train.get(0)[..6], [0, 60, 120, 1, 61, 121]);
        assert_eq!((held_out.unwrap().len(), train.names()[9].as_str()), (1, "truck"));
    }
    let one = images::open(dir.path().join("data_batch_1.bin"), &Reading { size: Some(8), colour: Some(Colour::Grey) });
    assert_eq!(one.unwrap().train.dims().values(), 64);
}

#[test]
fn the_world_is_the_same_in_memory_and_in_files_of_both_kinds() {
    let (shapes, dir) = (Shapes::new(3, 28).unwrap(), TempDir::new().unwrap());
    let memory = shapes.found(60).unwrap();
    for format in [images::world::Format::Idx, images::world::Format::Png] {
        let dir = dir.path().join(format!("{format:?}"));
        shapes.write(&dir, 60, format).unwrap();
        assert!(images::are_at(&dir), "{format:?}");
        let files = images::open(&dir, &Reading::default()).unwrap();
        for (memory, files) in
            [(&memory.train, &files.train), (memory.held_out.as_ref().unwrap(), &files.held_out.unwrap())]
        {
            // A folder of files is sorted by class.
            let all = |pictures: &images::Pictures| {
                let one = |i| (pictures.names()[pictures.label(i).unwrap()].clone(), pictures.get(i).to_vec());
                (0..pictures.len()).map(one).collect::<BTreeSet<_>>()
            };
            assert_eq!((memory.len(), all(memory)), (files.len(), all(files)), "{format:?}");
        }
    }
    assert!(!images::are_at(&dir.path().join("Png/train/nothing")));
}

#[test]
fn a_warm_batch_allocates_nothing() {
    let found = Shapes::new(1, 28).unwrap().found(40).unwrap();
    let batches = PictureBatches::new(found.train, 8, Range::Signed, Augment { flip: true, shift: 2 }, 1).unwrap();
    let (mut x, mut labels) = (vec![0.0; 8 * 784], vec![0; 8]);
    assert_eq!(allocations(|| (0..20).for_each(|number| batches.fill(number, &mut x, &mut labels))), 0);
    assert!(x.iter().all(|x| (-1.0..=1.0).contains(x)));
}

/// With `KILN_PLOTS` set they are left in that folder, to be looked at.
#[test]
fn sheets_hold_the_pictures_and_are_shown_one_after_the_other() {
    let kept = std::env::var_os("KILN_PLOTS").map(PathBuf::from);
    let temporary = TempDir::new().unwrap();
    let dir = kept.unwrap_or(temporary.path().to_owned());
    let found = Shapes::new(1, 28).unwrap().found(60).unwrap();
    let (train, dims) = (found.train, found.held_out.as_ref().unwrap().dims());
    let mut x = vec![0.0; 24 * dims.values()];
    train.fill(0, Range::Signed, &mut x, &mut []);
    let bytes = Range::Signed.bytes(&x);
    let grid = Grid { columns: 8, gap: 3, scale: 2 };
    let sheet = grid.draw(&bytes, dims);
    assert_eq!((sheet.dims.width, sheet.dims.height), (8 * 59 + 3, 3 * 59 + 3));
    // Picture 9 is the second of the second row; its pixel (y, x) is a square of four.
    for (y, x) in [(0, 0), (14, 11), (27, 27)] {
        let at = |dy, dx| sheet.values[(62 + 2 * y + dy) * sheet.dims.width + 62 + 2 * x + dx];
        assert_eq!([at(0, 0), at(0, 1), at(1, 0), at(1, 1)], [train.get(9)[28 * y + x]; 4]);
    }
    sheet.save(&Os, &dir.join("grid.png")).unwrap();
    assert_eq!(Sheet::load(&Os, &dir.join("grid.png")).unwrap(), sheet);

    // Eleven pairs, eight in a row: the last ones stay one above the other.
    let (above, below) = (&bytes[..11 * 784], bytes[..11 * 784].iter().map(|v| 255 - v).collect::<Vec<_>>());
    let pairs = grid.pairs(above, &below, dims);
    assert_eq!(pairs.dims.height, 4 * 59 + 3);
    pairs.save(&Os, &dir.join("pairs.png")).unwrap();
    let middle =
        |row: usize, column: usize| pairs.values[(row * 59 + 3 + 28) * pairs.dims.width + column * 59 + 3 + 28];
    assert_eq!(middle(3, 2), 255 - middle(2, 2));
    assert_eq!((middle(2, 3), middle(3, 7)), (96, 96));

    let sheets: Vec<Sheet> = (0..12)
        .map(|i| {
            let faded: Vec<f32> = x.iter().map(|v| (v + 1.0) * i as f32 / 11.0 - 1.0).collect();
            grid.draw(&Range::Signed.bytes(&faded), dims)
        })
        .collect();
    animate(&Os, &dir.join("strip.png"), &sheets, 150).unwrap();
    let decoder = png::Decoder::new(fs::File::open(dir.join("strip.png")).unwrap());
    let mut reader = decoder.read_info().unwrap();
    assert_eq!(reader.info().animation_control().map(|control| control.num_frames), Some(12));
    let mut frame = vec![0; reader.output_buffer_size()];
    reader.next_frame(&mut frame).unwrap();
    assert_eq!(frame, sheets[11].values, "what is shown where nothing moves");
    for sheet in &sheets {
        reader.next_frame(&mut frame).unwrap();
        assert_eq!(frame, sheet.values);
    }
    let other = grid.draw(&bytes[..784], dims);
    assert_says(animate(&Os, &dir.join("a.png"), &[sheets[0].clone(), other], 100), &["475 x 62"]);
    assert!(animate(&Os, &dir.join("a.png"), &[], 100).is_err());
}

/// Files with bytes that were changed are read or refused, and nothing worse.
#[test]
fn damaged_files_never_panic() {
    let mut rng = Rng::new(1, Purpose::Test, 0, 0);
    let names =
        ["jpeg", "jpeg_subsampled", "jpeg_progressive", "jpeg_grey", "jpeg_cmyk", "png", "png_palette", "png_bits"];
    let files: Vec<(String, Vec<u8>)> = (0..1200)
        .map(|i| {
            let mut bytes = stored(&format!("{}.file", names[i % names.len()]));
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len() as u32) as usize;
                bytes[at] = rng.below(256) as u8;
            }
            if rng.below(4) == 0 {
                bytes.truncate(rng.below(bytes.len() as u32) as usize);
            }
            (format!("{i}.jpg"), bytes)
        })
        .collect();
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let dir = folder(&files);
    let found = images::open(dir.path(), &Reading { size: Some(8), colour: None }).unwrap();
    assert_eq!(found.train.len() as u64 + found.skips.total(), 1200);
    assert!(found.skips.total() > 300, "{:?}", found.skips.counts);
}

#[test]
fn mnist_is_read_where_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/images/train-images-idx3-ubyte.gz");
    if !path.is_file() {
        return println!("skipped: no {}", path.display());
    }
    let found = images::open(&path, &Reading::default()).unwrap();
    assert_eq!((found.train.len(), found.train.classes()), (60_000, 10));
    let summary = images::Summary::of(&found.train);
    // The mean and the deviation that everybody uses.
    assert!((summary.mean[0] - 0.1307).abs() < 5e-5 && (summary.std[0] - 0.3081).abs() < 5e-5, "{summary:?}");
    assert_eq!(summary.labels[1].pictures, 6742);
    assert_eq!(Idx::read(path.with_file_name("train-labels-idx1-ubyte.gz")).unwrap().values[..3], [5, 0, 4]);
}
