//! The naive kernels that are there to be compared with.

use super::*;
use crate::device::Grid;
use crate::device::kernels::Setting;

/// M, N, K.
const PRODUCT: [usize; 3] = [128, 128, 64];

pub(super) fn cases(cases: &mut Vec<Case>) {
    let mut add = |entry: &'static str, what: &str, pad: Option<i64>| {
        let [m, n, k] = PRODUCT;
        let name = format!("{what}, f32 nt {m} x {n} x {k}");
        let work = move |trial: &Trial<'_>| product(trial, entry, pad);
        cases.push(Case::new("study.ptx", &[entry], name, work).typical(true));
    };
    add("product_naive", "naive", None);
    add("product_tiled", "tiles without padding", Some(0));
    add("product_tiled", "tiles with padding", Some(1));
    let (rows, c) = (133, 768);
    let name = format!("a row a thread, f32 {rows} x {c}");
    let work = move |trial: &Trial<'_>| row_sum(trial, rows, c);
    cases.push(Case::new("study.ptx", &["row_sum_naive"], name, work).typical(true));
}

fn product(trial: &Trial<'_>, entry: &'static str, pad: Option<i64>) -> Result<()> {
    let [m, n_, k] = PRODUCT;
    let (a, b) = (normal(0, m * k, 1.0), normal(1, n_ * k, 1.0));
    let (pa, pb, pc) = (trial.put(&a)?, trial.put(&b)?, trial.room(4 * m * n_)?);
    let settings = pad.map(|pad| ("PAD", Setting::Number(pad)));
    let grid = Grid { blocks: [n_ as u32 / 32, m as u32 / 32, 1], threads: [32, 32, 1], shared: 0 };
    let plan = Plan { variant: Variant::new("study.ptx", settings), entry, grid };
    trial.run(&plan, &[pa.into(), pb.into(), pc.into(), n(n_), n(k)])?;
    let element = |i: usize, l: usize| f64::from(a[i / n_ * k + l]) * f64::from(b[i % n_ * k + l]);
    let want: Vec<f64> = (0..m * n_).map(|i| (0..k).map(|l| element(i, l)).sum()).collect();
    trial.close_at("C", Float::F32, pc, &want, bound(Float::F32))
}

fn row_sum(trial: &Trial<'_>, rows: usize, c: usize) -> Result<()> {
    let x = normal(0, rows * c, 1.0);
    let (px, py) = (trial.put(&x)?, trial.room(4 * rows)?);
    let grid = Grid::new(rows.div_ceil(256) as u32, 256);
    let plan = Plan { variant: Variant::new("study.ptx", []), entry: "row_sum_naive", grid };
    trial.run(&plan, &[px.into(), py.into(), n(rows), n(c)])?;
    let want: Vec<f64> = x.chunks_exact(c).map(|row| row.iter().map(|x| f64::from(*x)).sum()).collect();
    trial.close_at("y", Float::F32, py, &want, bound(Float::F32))
}
