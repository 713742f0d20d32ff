//! Ranks that are threads of one process: what tests train with.

use super::Engine;
use crate::error::Result;
use std::sync::{Arc, Barrier, Mutex};

/// Where the ranks of a process meet.
#[derive(Clone)]
pub struct Meeting(Arc<Table>);

struct Table {
    all: Barrier,
    numbers: Vec<Mutex<Vec<f32>>>,
    word: Mutex<Vec<u8>>,
}

impl Meeting {
    /// A meeting of `size` ranks.
    pub fn of(size: usize) -> Meeting {
        let numbers = (0..size).map(|_| Mutex::default()).collect();
        Meeting(Arc::new(Table { all: Barrier::new(size), numbers, word: Mutex::default() }))
    }

    /// Rank number `rank` of it.
    pub fn join(&self, rank: usize) -> Local {
        Local { rank, table: self.0.clone() }
    }
}

/// A rank that is a thread.
pub struct Local {
    rank: usize,
    table: Arc<Table>,
}

impl Engine for Local {
    fn place(&self) -> [usize; 2] {
        [self.rank, self.table.numbers.len()]
    }

    fn sum(&mut self, values: &mut [f32]) -> Result<()> {
        let Table { all, numbers, .. } = &*self.table;
        values.clone_into(&mut numbers[self.rank].lock().expect("no rank panics here"));
        all.wait();
        values.fill(0.0);
        // In the same order everywhere: all get the same bits.
        for own in numbers {
            let own = own.lock().expect("no rank panics here");
            values.iter_mut().zip(&*own).for_each(|(sum, x)| *sum += x);
        }
        all.wait();
        Ok(())
    }

    fn tell(&mut self, bytes: &mut [u8]) -> Result<()> {
        let Table { all, word, .. } = &*self.table;
        if self.rank == 0 {
            bytes.clone_into(&mut word.lock().expect("no rank panics here"));
        }
        all.wait();
        bytes.copy_from_slice(&word.lock().expect("no rank panics here"));
        all.wait();
        Ok(())
    }
}
