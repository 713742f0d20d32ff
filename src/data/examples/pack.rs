//! Examples to rows of one length.

use super::Example;
use crate::data::batch::Permutation;

/// Examples in rows of one length.
pub struct Rows {
    examples: Vec<Example>,
    rows: Vec<Row>,
}

/// The tensors of a row, T each.
pub struct RowMut<'a> {
    /// Tokens.
    pub ids: &'a mut [i32],
    /// The token after each.
    pub targets: &'a mut [i32],
    /// What that counts in the loss.
    pub weights: &'a mut [f32],
    /// Where in its example each token stands.
    pub places: &'a mut [i32],
}

impl Rows {
    /// Rows of `context` tokens; see [`pack`].
    pub fn new(examples: Vec<Example>, context: usize, alone: bool) -> Rows {
        let rows = pack(&examples, context, alone);
        Rows { examples, rows }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The examples in them.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// The row that is visited as number `index`, counted over all epochs: in each, every row once, in an order of its own.
    pub fn at(&self, index: u64, seed: u64) -> usize {
        let n = self.rows.len() as u64;
        Permutation::new(n, seed, index / n).get(index % n) as usize
    }

    /// The tokens of a row that are trained on.
    pub fn targets(&self, row: usize) -> usize {
        self.rows[row].iter().map(|&i| self.examples[i as usize].targets()).sum()
    }

    /// Fills `to` with a row: targets that are trained on weigh `weight`, others 0. What is behind the last example is
    /// one more, of zeros, that weighs nothing.
    pub fn fill(&self, row: usize, weight: f32, to: RowMut) {
        let RowMut { ids, targets, weights, places } = to;
        let mut at = 0;
        for &i in &self.rows[row] {
            let example = &self.examples[i as usize];
            let n = example.ids.len() - 1;
            for j in 0..n {
                ids[at + j] = example.ids[j] as i32;
                targets[at + j] = example.ids[j + 1] as i32;
                weights[at + j] = if example.trained[j + 1] { weight } else { 0.0 };
                places[at + j] = j as i32;
            }
            at += n;
        }
        for (place, j) in (at..ids.len()).enumerate() {
            (ids[j], targets[j], weights[j], places[j]) = (0, 0, 0.0, place as i32);
        }
    }
}

/// Which examples share a row, in order.
pub type Row = Vec<u32>;

/// Fills rows of `context` tokens with examples, each whole: from the longest to the shortest, each goes where it leaves the
/// least room (best fit, decreasing; within 11/9 of the fewest rows: Johnson 1973). An example takes one place less than it has
/// tokens, since of the last one nothing is predicted. With `alone` each has a row to itself. Rows are in the order of their first examples.
///
/// # Panics
/// An example is longer than a row.
pub fn pack(examples: &[Example], context: usize, alone: bool) -> Vec<Row> {
    let places = |&i: &u32| examples[i as usize].ids.len() - 1;
    let all = 0..examples.len() as u32;
    assert!(all.clone().all(|i| places(&i) <= context), "an example is longer than a row");
    if alone {
        return all.map(|i| vec![i]).collect();
    }
    let mut order: Vec<u32> = all.collect();
    order.sort_by_key(|i| std::cmp::Reverse(places(i)));
    // By the room that is left: the rows with as much, as a stack.
    let mut rooms: std::collections::BTreeMap<usize, Vec<usize>> = Default::default();
    let mut rows: Vec<Row> = Vec::new();
    for i in order {
        let need = places(&i);
        let fit = rooms.range(need..).next().map(|(&room, _)| room);
        let (row, room) = match fit {
            Some(room) => {
                let same = rooms.get_mut(&room).expect("it was found");
                let row = same.pop().expect("no empty stack stays");
                if same.is_empty() {
                    rooms.remove(&room);
                }
                (row, room)
            }
            None => {
                rows.push(Row::new());
                (rows.len() - 1, context)
            }
        };
        rows[row].push(i);
        rooms.entry(room - need).or_default().push(row);
    }
    rows.iter_mut().for_each(|row| row.sort_unstable());
    rows.sort_unstable();
    rows
}
