//! Where a run would be: here, or on a card of a table.

use super::cost::Rates;
use crate::bench::cards::{CARDS, Card};
use crate::cpu::gemm::Precision;
use crate::cpu::{Cpu, limits};
use crate::device::{Device, Dry};
use crate::error::{Error, Result};
use std::sync::Arc;

/// US dollars an hour for a card, as assumed where nobody says it: about what it is rented for, and no offer of anybody's.
const PRICES: [(&str, f64); 5] = [("a100", 1.8), ("h100", 3.0), ("h200", 3.8), ("rtx3090", 0.25), ("rtx4090", 0.45)];

/// The same for a thread of a processor, and its watts.
const THREAD: (f64, f64) = (0.04, 10.0);

/// The share of a processor's peak that a training step of kiln is assumed to reach: 0.64 to 0.73 where it was measured
/// (README), less for small models.
const SHARE_OF_CPU: f64 = 0.5;

/// Bytes of a parameter that AdamW reads and writes in an update, in f32: weight, gradient and two moments, then all but the
/// gradient.
const UPDATE: f64 = 28.0;

/// A machine.
#[derive(Clone, Copy, Debug)]
pub enum Machine {
    /// This one.
    Cpu,
    /// A card.
    Card(&'static Card),
}

impl Machine {
    /// The share of a card's peak that is assumed where nobody says it. Large models reach 0.3 to 0.5 (PaLM 0.46, arXiv
    /// 2204.02311, table 3); small ones far less.
    pub const UTILISATION: f64 = 0.35;

    /// `cpu`, or a card of [`CARDS`].
    ///
    /// # Errors
    /// There is none of that name.
    pub fn named(name: &str) -> Result<Machine> {
        if name == "cpu" {
            return Ok(Machine::Cpu);
        }
        CARDS.iter().find(|card| card.name == name).map(Machine::Card).ok_or_else(|| {
            let names: Vec<&str> = CARDS.iter().map(|card| card.name).collect();
            Error::usage(
                format!("--machine: no machine is called {name:?}"),
                format!("choose cpu or {}", names.join(", ")),
            )
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Machine::Cpu => "cpu",
            Machine::Card(card) => card.name,
        }
    }

    /// What an hour of it costs where nobody says it, on so many threads.
    pub fn rates(&self, threads: usize) -> Rates {
        let (price, watts) = match self {
            Machine::Cpu => (THREAD.0 * threads as f64, THREAD.1 * threads as f64),
            Machine::Card(card) => {
                (PRICES.iter().find(|(name, _)| *name == card.name).map_or(0.0, |(_, price)| *price), card.watts)
            }
        };
        Rates { price, watts, carbon: Rates::CARBON }
    }

    /// A device on which runs can be planned: `here`, or one with a card's memory that computes nothing.
    ///
    /// # Errors
    /// As of [`Device::gpu`].
    pub fn device(&self, here: &Device) -> Result<Device> {
        match self {
            Machine::Cpu => Ok(here.clone()),
            Machine::Card(card) => {
                let memory = (card.capacity * 2f64.powi(30)) as usize;
                Device::gpu(Arc::new(Dry::new(memory)), Cpu::new(here.host().threads.count())?)
            }
        }
    }

    /// Operations a second that are assumed, of a peak that is measured or published, and how that is said.
    pub fn speed(&self, here: &Device, precision: Precision, utilisation: f64) -> (f64, String) {
        match self {
            Machine::Cpu => {
                let peak = 1e9 * limits::fma_peak(here.host(), 0.2);
                let text = format!(
                    "{:.0} % of the {:.0} GFLOP/s that were measured, an assumption",
                    100.0 * SHARE_OF_CPU,
                    peak / 1e9
                );
                (SHARE_OF_CPU * peak, text)
            }
            Machine::Card(card) => {
                let peak = match precision {
                    Precision::Bf16 => card.bf16,
                    Precision::F32 => card.f32,
                };
                let (percent, name) = (100.0 * utilisation, precision.name());
                let text = format!("{percent:.0} % of {peak} TFLOP/s in {name}, an assumption ({})", card.source);
                (utilisation * peak * 1e12, text)
            }
        }
    }

    /// Seconds of a step of so many operations that updates so many parameters, by the table.
    pub fn step(&self, flops: f64, speed: f64, trained: usize) -> f64 {
        let update = match self {
            Machine::Cpu => 0.0,
            Machine::Card(card) => UPDATE * trained as f64 / (card.memory * 1e9),
        };
        flops / speed + update
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_card_has_a_price_and_a_step_takes_its_operations_and_its_update() {
        for card in &CARDS {
            let machine = Machine::named(card.name).unwrap();
            assert!(machine.rates(1).price > 0.0, "{}", card.name);
            // A second of operations, and as many parameters as a second of memory's bandwidth updates.
            let trained = (card.memory * 1e9 / UPDATE) as usize;
            assert!((machine.step(1e12, 1e12, trained) - 2.0).abs() < 1e-6);
        }
        assert!(Machine::named("b200").unwrap_err().hint().unwrap().contains("rtx4090"));
    }
}
