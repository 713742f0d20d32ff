//! Ranks that find each other as torchrun's do: `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`. Rank 0 listens, on the port after the one that torchrun
//! itself uses, and the others connect. It carries a few words a step, and the id by which GPUs meet; their gradients go through NCCL.

use super::Engine;
use crate::error::{AtPath, Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long the others may take to come.
const COMING: Duration = Duration::from_secs(120);

/// A rank with its connections: of rank 0 to all others, in their order, of another to rank 0.
pub struct Tcp {
    rank: usize,
    size: usize,
    to: Vec<TcpStream>,
}

fn lost(error: &std::io::Error) -> Error {
    Error::device(
        format!("the ranks have not met: {error}"),
        "see that all were started, with the same MASTER_ADDR and MASTER_PORT",
    )
}

impl Tcp {
    /// Waits for all ranks at `address`, as `10.0.0.1:29501`.
    ///
    /// # Errors
    /// They do not come; rank 0 cannot listen there.
    pub fn meet(address: &str, rank: usize, size: usize) -> Result<Tcp> {
        let to = if rank == 0 { listen(address, size) } else { connect(address, rank).map(|stream| vec![stream]) };
        Ok(Tcp { rank, size, to: to.map_err(|e| lost(&e))? })
    }

    /// As the environment says.
    ///
    /// # Errors
    /// A variable is missing or no number; as of [`meet`](Tcp::meet).
    pub fn of_env() -> Result<Tcp> {
        let text = |name: &str| {
            std::env::var(name).map_err(|_| {
                Error::usage(
                    format!("{name} is not set"),
                    "start ranks by torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
                )
            })
        };
        let number = |name: &str| -> Result<usize> {
            let value = text(name)?;
            value.parse().map_err(|_| Error::usage(format!("{name}: {value:?} is no number"), "give a whole number"))
        };
        let [rank, size, port] = [number("RANK")?, number("WORLD_SIZE")?, number("MASTER_PORT")?];
        if rank >= size {
            return Err(Error::usage(format!("RANK: {rank} is not below WORLD_SIZE, {size}"), "ranks count from 0"));
        }
        Tcp::meet(&format!("{}:{}", text("MASTER_ADDR")?, port + 1), rank, size)
    }
}

/// The others, by number.
fn listen(address: &str, size: usize) -> std::io::Result<Vec<TcpStream>> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let (mut all, start) = ((1..size).map(|_| None).collect::<Vec<_>>(), Instant::now());
    while all.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                let mut rank = [0; 8];
                stream.read_exact(&mut rank)?;
                let slot = (u64::from_le_bytes(rank) as usize).checked_sub(1).and_then(|i| all.get_mut(i));
                *slot
                    .ok_or_else(|| std::io::Error::new(ErrorKind::InvalidData, "a rank that is none of them came"))? =
                    Some(stream);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && start.elapsed() < COMING => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
    Ok(all.into_iter().flatten().collect())
}

fn connect(address: &str, rank: usize) -> std::io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(mut stream) => {
                stream.set_nodelay(true)?;
                stream.write_all(&(rank as u64).to_le_bytes())?;
                return Ok(stream);
            }
            // Rank 0 may not be there yet.
            Err(e) if start.elapsed() > COMING => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

impl Engine for Tcp {
    fn place(&self) -> [usize; 2] {
        [self.rank, self.size]
    }

    fn sum(&mut self, values: &mut [f32]) -> Result<()> {
        let Some((first, _)) = self.to.split_first_mut() else { return Ok(()) };
        if self.rank > 0 {
            first.write_all(bytemuck::cast_slice(values)).at("rank 0")?;
            return first.read_exact(bytemuck::cast_slice_mut(values)).at("rank 0");
        }
        let mut own = vec![0.0f32; values.len()];
        for stream in &mut self.to {
            stream.read_exact(bytemuck::cast_slice_mut(&mut own)).at("another rank")?;
            values.iter_mut().zip(&own).for_each(|(sum, x)| *sum += x);
        }
        self.to.iter_mut().try_for_each(|stream| stream.write_all(bytemuck::cast_slice(values)).at("another rank"))
    }

    fn tell(&mut self, bytes: &mut [u8]) -> Result<()> {
        match (self.rank, &mut self.to[..]) {
            (0, all) => all.iter_mut().try_for_each(|stream| stream.write_all(bytes).at("another rank")),
            (_, all) => all[0].read_exact(bytes).at("rank 0"),
        }
    }
}
