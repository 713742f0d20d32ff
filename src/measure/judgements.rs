//! What numbers of judgements say: is one preferred, how sure is that, how many more are needed, do reviewers agree.

/// 1.96: of a normal deviate, 2.5 % are above it.
const Z_ALPHA: f64 = 1.959_963_984_540_054;
/// 0.84: 20 % are above it, for a power of 80 %.
const Z_BETA: f64 = 0.841_621_233_572_914_2;

/// The probability below which a preference counts as shown.
pub const ALPHA: f64 = 0.05;

/// ln of the binomial coefficient.
fn ln_choose(n: u64, k: u64) -> f64 {
    let ln_factorial = |n: u64| libm::lgamma(n as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// The exact two-sided p of the sign test: how probable it is that of `n` judgements of two that are alike at least as many, or as
/// few, prefer one of them as `wins` do. 1 where there are none.
pub fn sign_test(wins: u64, n: u64) -> f64 {
    let most = wins.max(n - wins);
    let tail: f64 = (most..=n).map(|k| libm::exp(ln_choose(n, k) - n as f64 * std::f64::consts::LN_2)).sum();
    (2.0 * tail).min(1.0)
}

/// A p that holds however often one looked and whenever one stops. With a share that may be any from 0 to 1, all as likely, the
/// judgements are 2ⁿ / ((n + 1)·C(n, w)) times as probable as with one half; that this ever reaches 1/p has, if the two are alike, at
/// most probability p (Ville 1939; Robbins 1970, "Statistical methods related to the law of the iterated logarithm").
pub fn any_time(wins: u64, n: u64) -> f64 {
    let evidence = n as f64 * std::f64::consts::LN_2 - libm::log(n as f64 + 1.0) - ln_choose(n, wins);
    libm::exp(-evidence).min(1.0)
}

/// Wilson's 95 % interval of a share (Wilson 1927; method 3 of Newcombe 1998): where the share of all that could be judged lies.
pub fn wilson(wins: u64, n: u64) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let (n, share, z2) = (n as f64, wins as f64 / n as f64, Z_ALPHA * Z_ALPHA);
    let middle = share + z2 / (2.0 * n);
    let half = Z_ALPHA * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    [middle - half, middle + half].map(|x| (x / (1.0 + z2 / n)).clamp(0.0, 1.0))
}

/// How many judgements a sign test needs in all to find a preference of this share in 80 % of cases at p < 0.05:
/// (z_α/2 + z_β)² / (4 (share − ½)²), of Noether 1987, "Sample size determination for some common nonparametric tests". `None` for
/// one half.
pub fn needed(share: f64) -> Option<u64> {
    let distance = share - 0.5;
    (distance != 0.0).then(|| (Z_ALPHA + Z_BETA).powi(2) / (4.0 * distance * distance)).map(|n| n.ceil() as u64)
}

/// How far two reviewers agree beyond chance (Cohen 1960): `table[i][j]` things got category i of the one and j of the other. With
/// `ordered` categories a disagreement weighs as the square of its distance (Cohen 1968). `None` where nothing was judged or
/// chance alone would make them agree.
pub fn cohen(table: &[Vec<u64>], ordered: bool) -> Option<f64> {
    let n: u64 = table.iter().flatten().sum();
    let row = |i: usize| table[i].iter().sum::<u64>() as f64;
    let column = |j: usize| table.iter().map(|row| row[j]).sum::<u64>() as f64;
    let weight = |i: usize, j: usize| if ordered { (i as f64 - j as f64).powi(2) } else { f64::from(u8::from(i != j)) };
    let (mut seen, mut chance) = (0.0, 0.0);
    for (i, counts) in table.iter().enumerate() {
        for (j, &count) in counts.iter().enumerate() {
            seen += weight(i, j) * count as f64;
            chance += weight(i, j) * row(i) * column(j) / n as f64;
        }
    }
    (n > 0 && chance > 0.0).then(|| 1.0 - seen / chance)
}

/// The same of many reviewers (Fleiss 1971): `table[i][j]` of them gave thing i category j, and all things have equally many
/// judgements, two or more. `None` where there are no things, or chance alone would make them agree.
pub fn fleiss(table: &[Vec<u64>]) -> Option<f64> {
    let each: u64 = table.first()?.iter().sum();
    let (things, each) = (table.len() as f64, each as f64);
    let agree = |row: &Vec<u64>| {
        let squares: u64 = row.iter().map(|n| n * n).sum();
        (squares as f64 - each) / (each * (each - 1.0))
    };
    let seen = table.iter().map(agree).sum::<f64>() / things;
    let share = |j: usize| table.iter().map(|row| row[j]).sum::<u64>() as f64 / (things * each);
    let chance: f64 = (0..table[0].len()).map(|j| share(j).powi(2)).sum();
    (each > 1.0 && chance < 1.0).then(|| (seen - chance) / (1.0 - chance))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, published: f64, digits: i32) {
        assert!((found - published).abs() <= 0.5000001 * 10f64.powi(-digits), "{found}, published {published}");
    }

    #[test]
    fn the_sign_test_is_exact() {
        // Tails of the binomial table: P(X ≤ 1; 8) = 9/256, P(X ≤ 5; 20) = 0.020695, P(X ≤ 6; 20) = 0.057659.
        close(sign_test(1, 8), 2.0 * 9.0 / 256.0, 12);
        close(sign_test(7, 8), 2.0 * 9.0 / 256.0, 12);
        close(sign_test(15, 20), 0.041389, 6);
        close(sign_test(14, 20), 0.115318, 6);
        assert_eq!((sign_test(0, 0), sign_test(5, 10)), (1.0, 1.0));
        // Numbers whose power of two has no place in an f64.
        let p = sign_test(5_200, 10_000);
        assert!((6e-5..7e-5).contains(&p), "{p}");
    }

    #[test]
    fn what_holds_at_any_time_asks_for_more() {
        assert_eq!(any_time(0, 0), 1.0);
        // 9 of 9: 10 / 2⁹.
        close(any_time(9, 9), 10.0 / 512.0, 12);
        for n in 1..200 {
            for wins in 0..=n {
                assert!(any_time(wins, n) >= sign_test(wins, n) - 1e-12, "{wins} of {n}");
            }
        }
    }

    /// The promise itself: of two that are alike, how many series ever fall below 0.05? Every series of 16 judgements.
    #[test]
    fn who_looks_after_every_judgement_is_seldom_misled() {
        let misled = |p: fn(u64, u64) -> f64| {
            let ever = |bits: u64| (1..=16).any(|n| p((bits & ((1 << n) - 1)).count_ones().into(), n) < ALPHA);
            (0..1u64 << 16).filter(|&bits| ever(bits)).count() as f64 / f64::from(1 << 16)
        };
        let (once, always) = (misled(sign_test), misled(any_time));
        assert!(once > ALPHA && always < ALPHA, "{once}, {always}");
    }

    /// Newcombe 1998, table I, method 3.
    #[test]
    fn wilsons_intervals_are_those_of_newcombe() {
        let published = [
            (81, 263, [0.2553, 0.3662]),
            (15, 148, [0.0624, 0.1605]),
            (0, 20, [0.0, 0.1611]),
            (1, 29, [0.0061, 0.1718]),
        ];
        for (wins, n, interval) in published {
            wilson(wins, n).into_iter().zip(interval).for_each(|(found, published)| close(found, published, 4));
        }
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
    }

    #[test]
    fn needed_numbers_follow_noether() {
        // (1.96 + 0.84)² = 7.849; over 4 · 0.2², 4 · 0.1², 4 · 0.5².
        assert_eq!([0.7, 0.3, 0.6, 1.0].map(needed), [Some(50), Some(50), Some(197), Some(8)]);
        assert_eq!(needed(0.5), None);
    }

    #[test]
    fn cohens_kappa_is_that_of_his_paper() {
        // Cohen 1960, table 2, as frequencies of 200: 140 agree, 82 would by chance; κ = 0.492.
        let table = [vec![88, 14, 18], vec![10, 40, 10], vec![2, 6, 12]];
        close(cohen(&table, false).expect("a number"), 58.0 / 118.0, 9);
        // The textbook's 50 proposals: 0.4.
        close(cohen(&[vec![20, 5], vec![10, 15]], false).expect("a number"), 0.4, 9);
        // Of two categories, distances are all alike.
        close(cohen(&[vec![20, 5], vec![10, 15]], true).expect("a number"), 0.4, 9);
        let near = [vec![5, 5, 0], vec![0, 5, 5], vec![0, 0, 5]];
        assert!(cohen(&near, true) > cohen(&near, false));
        assert_eq!(cohen(&[vec![7, 0], vec![0, 0]], false), None);
        assert_eq!(cohen(&[vec![0, 0], vec![0, 0]], false), None);
    }

    /// Fleiss 1971: 30 patients, 6 psychiatrists, 5 diagnoses.
    #[test]
    fn fleiss_kappa_is_that_of_his_paper() {
        let patients = "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 \
                        00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006";
        let row = |text: &str| text.bytes().map(|b| u64::from(b - b'0')).collect::<Vec<_>>();
        let table: Vec<Vec<u64>> = patients.split(' ').map(row).collect();
        assert_eq!(table.len(), 30);
        close(fleiss(&table).expect("a number"), 0.430, 3);
        assert_eq!(fleiss(&[vec![3, 0], vec![3, 0]]), None);
        assert_eq!(fleiss(&[]), None);
    }
}
