//! `plan.json` in a run's directory: what was planned before its first step, and what it took.

use super::fit::Plan;
use super::recipe::MAX_FILE;
use super::run::{ACCOUNT, RunDir};
use crate::data::atomic::write_atomic;
use crate::device::{Device, probe};
use crate::disk::{self, Disk, Os};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// What was planned, and what it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Before the first step.
    pub planned: Planned,
    /// After the last one; absent while the run is under way, and where its process was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Actual>,
}

/// What a run is going to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Bytes, by what they are for.
    pub memory: Plan,
    /// Elements of all parameters.
    pub parameters: usize,
    /// Those of them that are trained.
    pub trained: usize,
    /// Steps of the whole run.
    pub steps: u64,
    /// Floating-point operations of a step; 0 where nobody counted them.
    pub flops_per_step: f64,
    /// What computes, `cpu` or `gpu`.
    pub device: String,
    /// Threads of the host.
    pub threads: usize,
}

/// What the processes of a run took that came to their end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Actual {
    /// Steps that they did.
    pub steps: u64,
    /// Seconds, from reading data to the last file.
    pub seconds: f64,
    /// The most bytes that were taken from the system for tensors and for scratch.
    pub mapped: u64,
    /// The most bytes that a process held at one time, program and data included; `None` where the system does not say.
    pub resident: Option<u64>,
}

impl Actual {
    /// What this process took so far for `steps` steps on `device`.
    pub fn of(device: &Device, steps: u64, time: Duration) -> Actual {
        let mapped = device.mapped_bytes().iter().sum::<usize>() as u64;
        Actual { steps, seconds: time.as_secs_f64(), mapped, resident: probe::resident_peak() }
    }
}

impl Account {
    /// Opens the account of a run that begins, or goes on, as `planned`.
    pub(super) fn open(run: &RunDir, planned: Planned) -> Result<Account> {
        // One that is damaged is of no use to anybody, and no reason to end a run.
        let actual = read_on(run.disk(), &run.account()).ok().flatten().and_then(|account| account.actual);
        let account = Account { planned, actual };
        account.write(run)?;
        Ok(account)
    }

    /// Adds what a process took.
    pub(super) fn close(&mut self, run: &RunDir, took: Actual) -> Result<()> {
        self.actual = Some(match self.actual {
            None => took,
            Some(before) => Actual {
                steps: before.steps + took.steps,
                seconds: before.seconds + took.seconds,
                mapped: before.mapped.max(took.mapped),
                resident: before.resident.max(took.resident),
            },
        });
        self.write(run)
    }

    fn write(&self, run: &RunDir) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("plain data");
        write_atomic(run.disk(), &run.account(), (text + "\n").as_bytes())
    }

    /// The account of the run in `dir`.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn read(dir: &Path) -> Result<Account> {
        read_on(&Os, &dir.join(ACCOUNT))?.ok_or_else(|| {
            let problem = format!("{} has no {ACCOUNT}", dir.display());
            Error::failed(problem, "runs of this version write one: give the directory of such a run")
        })
    }
}

fn read_on(disk: &dyn Disk, path: &Path) -> Result<Option<Account>> {
    if !disk.exists(path).map_err(|e| Error::io(path, e))? {
        return Ok(None);
    }
    let text = disk::text(disk, path, MAX_FILE)?;
    let hint = "the file is damaged: the run itself is not, and writes it anew when it goes on";
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| Error::format(path, "content", "what was planned and what it took", e, hint))
}
