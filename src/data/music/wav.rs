//! Melodies played into a file.

use std::f64::consts::TAU;
use std::path::Path;

use super::super::atomic::write_atomic;
use super::read;
use crate::disk::Os;
use crate::error::{Error, Result};

/// Seconds of an eighth.
const EIGHTH: f64 = 0.2;

/// Samples a second of a WAV file.
const RATE: u32 = 22_050;
/// Seconds of the longest one.
const LONGEST: f64 = 600.0;

/// Plays the melody of `text` into a WAV file: 16-bit PCM, one channel, an eighth lasting a fifth of a second. Gives its seconds.
///
/// # Errors
/// There is no note in the text; the file cannot be written.
pub fn play(text: &str, path: &Path) -> Result<f64> {
    let notes = read(text).notes;
    if notes.iter().all(|note| note.pitch.is_none()) {
        let hint = "the tokens must spell ABC notation: train on melodies, and start with a prompt such as \"X:1\"";
        return Err(Error::failed("there is no note in the text to play", hint));
    }
    let mut samples = Vec::new();
    for note in &notes {
        let seconds = (EIGHTH * f64::from(note.length)).min(LONGEST - samples.len() as f64 / f64::from(RATE));
        let n = (seconds.max(0.0) * f64::from(RATE)) as usize;
        let frequency = note.pitch.map(|pitch| 261.625_565 * libm::exp2(f64::from(pitch) / 12.0));
        samples.extend((0..n).map(|i| frequency.map_or(0, |frequency| tone(frequency, i, n))));
    }
    let bytes = 2 * samples.len() as u32;
    let mut file = Vec::with_capacity(44 + bytes as usize);
    file.extend(b"RIFF");
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    file.extend([1u16, 1].map(u16::to_le_bytes).concat()); // PCM, one channel
    file.extend([RATE, 2 * RATE].map(u32::to_le_bytes).concat());
    file.extend([2u16, 16].map(u16::to_le_bytes).concat()); // bytes of a frame, bits of a sample
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    write_atomic(&Os, path, &file)?;
    Ok(samples.len() as f64 / f64::from(RATE))
}

/// Sample `i` of `n` of a plucked tone: three harmonics that fade, swelling and ending softly so that nothing clicks.
fn tone(frequency: f64, i: usize, n: usize) -> i16 {
    let time = i as f64 / f64::from(RATE);
    let edge = 0.01 * f64::from(RATE);
    let envelope = (i as f64 / edge).min((n - i) as f64 / edge).min(1.0);
    let harmonic =
        |(k, strength): (f64, f64)| strength * libm::exp(-2.0 * k * time) * libm::sin(TAU * frequency * k * time);
    let wave: f64 = [(1.0, 0.6), (2.0, 0.25), (3.0, 0.1)].into_iter().map(harmonic).sum();
    (wave * envelope * 30_000.0) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wav_file_has_the_pitch_and_the_length_of_the_notes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wav");
        // A above middle C for two seconds, then a rest.
        assert_eq!(play("K:C\nA10 z5", &path).unwrap(), 3.0);
        let file = std::fs::read(&path).unwrap();
        assert_eq!((&file[..4], &file[8..16], file.len()), (&b"RIFF"[..], &b"WAVEfmt "[..], 44 + 3 * 2 * 22_050));
        let samples: Vec<i16> = file[44..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
        // 440 rising passages through zero a second.
        let crossings = samples[..22_050].windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        assert!((438..=441).contains(&crossings), "{crossings}");
        assert!(samples[2 * 22_050 + 10..].iter().all(|&sample| sample == 0));
        assert!(play("no notes here", &path).is_err());
    }
}
