//! Money, energy and carbon dioxide of so many seconds.

use serde::{Deserialize, Serialize};

/// What an hour costs, in three ways.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// US dollars an hour.
    pub price: f64,
    /// Watts.
    pub watts: f64,
    /// Grams of carbon dioxide a kWh.
    pub carbon: f64,
}

impl Rates {
    /// Grams of carbon dioxide a kWh where nobody says it: about the world's mean of 2024 (International Energy Agency,
    /// Electricity 2025).
    pub const CARBON: f64 = 445.0;
}

/// What some time costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// US dollars.
    pub money: f64,
    /// Kilowatt hours.
    pub kwh: f64,
    /// Kilograms of carbon dioxide.
    pub co2: f64,
}

impl Cost {
    /// What `seconds` cost.
    pub fn of(seconds: f64, rates: &Rates) -> Cost {
        let hours = seconds / 3600.0;
        let kwh = hours * rates.watts / 1000.0;
        Cost { money: hours * rates.price, kwh, co2: kwh * rates.carbon / 1000.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_costs_what_an_hour_costs() {
        let rates = Rates { price: 3.0, watts: 700.0, carbon: 500.0 };
        assert_eq!(Cost::of(7200.0, &rates), Cost { money: 6.0, kwh: 1.4, co2: 0.7 });
    }
}
