//! The five codecs, both ways.
//! Owns the bounds that keep a small batch from unfolding into all memory. Must never allocate by a size
//! that only the data claims.

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::{Error, xerial};

/// How the records of a batch are compressed; the codes are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub const fn from_code(code: u8) -> Result<Self, Error> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            code => Err(Error::UnknownCompression { code }),
        }
    }

    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The name in topic and producer configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Reads a configured name. `uncompressed` is Kafka's other word for `none`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::None),
            name => Self::ALL.into_iter().find(|codec| codec.name() == name),
        }
    }

    /// Unfolds what is not a batch, for instance a client's metrics. Fails once the result passes `bytes_max`.
    pub fn unfold(self, input: Bytes, bytes_max: usize) -> Result<Bytes, Error> {
        if self == Self::None && input.len() > bytes_max {
            return Err(self.corrupt(format!("{} bytes are more than {bytes_max}", input.len())));
        }
        decompress(self, input, bytes_max)
    }

    fn corrupt(self, reason: impl ToString) -> Error {
        Error::Corrupt {
            codec: self.name(),
            reason: reason.to_string(),
        }
    }
}

const GZIP_LEVEL_DEFAULT: u32 = 6;
const ZSTD_LEVEL_DEFAULT: i32 = 3;
/// The largest window a frame may ask us to keep: what zstd's level 19 uses.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// What a first guess at an unknown size may reserve.
const RESERVE_MAX: usize = 1 << 20;

/// The state a producer reuses from batch to batch.
pub(super) struct Compressor {
    /// Made when first needed: it holds a table of tens of kilobytes.
    snappy: Option<snap::raw::Encoder>,
    zstd: Option<(i32, zstd::bulk::Compressor<'static>)>,
}

impl Compressor {
    pub(super) const fn new() -> Self {
        Self {
            snappy: None,
            zstd: None,
        }
    }

    /// Appends `input`, compressed, to `out`. `level` means what the codec says it means.
    pub(super) fn compress(
        &mut self,
        codec: Compression,
        level: Option<i32>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let done = match codec {
            Compression::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Compression::Gzip => gzip(level, input, out),
            Compression::Snappy => xerial::compress(
                self.snappy.get_or_insert_with(snap::raw::Encoder::new),
                input,
                out,
            ),
            Compression::Lz4 => lz4(input, out),
            Compression::Zstd => self.zstd(level.unwrap_or(ZSTD_LEVEL_DEFAULT), input, out),
        };
        done.map_err(|reason| codec.corrupt(reason))
    }

    fn zstd(&mut self, level: i32, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if self.zstd.as_ref().is_none_or(|(had, _)| *had != level) {
            self.zstd = Some((level, zstd::bulk::Compressor::new(level)?));
        }
        let (_, compressor) = self.zstd.as_mut().expect("it was set above");
        let start = out.len();
        out.resize(start + zstd::zstd_safe::compress_bound(input.len()), 0);
        let written = compressor.compress_to_buffer(input, &mut out[start..])?;
        out.truncate(start + written);
        Ok(())
    }
}

fn gzip(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let level = level.map_or(GZIP_LEVEL_DEFAULT, |level| level.clamp(0, 9) as u32);
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(level));
    encoder.write_all(input)?;
    encoder.finish().map(drop)
}

fn lz4(input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    // Kafka's own writer cuts independent blocks of 64 KiB; older readers know nothing else.
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(input)?;
    encoder.finish().map(drop).map_err(io::Error::from)
}

/// Unfolds `input`, which is shared as it is when nothing is compressed. Fails once the result passes
/// `bytes_max`.
pub(super) fn decompress(codec: Compression, input: Bytes, bytes_max: usize) -> Result<Bytes, Error> {
    if input.is_empty() {
        // An emptied (compacted) batch keeps its codec bits and has no payload.
        return Ok(input);
    }
    let out = match codec {
        Compression::None => return Ok(input),
        Compression::Gzip => read_bounded(
            codec,
            flate2::read::MultiGzDecoder::new(&*input),
            &input,
            bytes_max,
        ),
        Compression::Lz4 => read_bounded(
            codec,
            lz4_flex::frame::FrameDecoder::new(&*input),
            &input,
            bytes_max,
        ),
        Compression::Snappy => xerial::decompress(&input, bytes_max),
        Compression::Zstd => unzstd(&input, bytes_max),
    }?;
    Ok(Bytes::from(out))
}

fn unzstd(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Error> {
    let codec = Compression::Zstd;
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(input).map_err(|error| codec.corrupt(error))?;
    decoder
        .window_log_max(ZSTD_WINDOW_LOG_MAX)
        .map_err(|error| codec.corrupt(error))?;
    read_bounded(codec, decoder, input, bytes_max)
}

fn read_bounded(
    codec: Compression,
    reader: impl Read,
    input: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(input.len().saturating_mul(4).min(RESERVE_MAX).min(bytes_max));
    let mut bounded = reader.take(bytes_max as u64 + 1);
    bounded
        .read_to_end(&mut out)
        .map_err(|error| codec.corrupt(error))?;
    if out.len() > bytes_max {
        return Err(Error::TooLarge { limit: bytes_max });
    }
    Ok(out)
}
