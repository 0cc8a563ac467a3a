//! `.pth` files as `torch.save` writes them: a ZIP archive of a pickle, which names the tensors,
//! and the raw bytes of each.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use blip2_lm::opt::keymap::TIED_OUTPUT;
use burn::tensor::DType;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::entries::Entry;
use crate::Blip2Error;
use crate::checkpoint::Progress;

/// LAVIS's key of the token embedding, which is the output layer as well.
const EMBEDDING: &str = "opt_model.model.decoder.embed_tokens.weight";

/// Writes `{"model": entries}`. The file appears whole or not at all.
pub(super) fn write(
    entries: Vec<Entry>,
    path: &Path,
    progress: &Progress,
) -> Result<PathBuf, Blip2Error> {
    let temporary = path.with_extension("pth.tmp");
    let io = |error: zip::result::ZipError| Blip2Error::io(&temporary)(error.into());
    let file = File::create(&temporary).map_err(Blip2Error::io(&temporary))?;
    let mut archive = ZipWriter::new(file);
    // Stored, not compressed: readers seek in it. Aligned as torch does it, so that it can map it.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(true)
        .with_alignment(64);
    let small = [
        ("data.pkl", pickle(&entries, path)?),
        ("byteorder", b"little".to_vec()),
        ("version", b"3\n".to_vec()),
    ];
    for (name, contents) in small {
        archive
            .start_file(format!("model/{name}"), options)
            .map_err(io)?;
        archive
            .write_all(&contents)
            .map_err(Blip2Error::io(&temporary))?;
    }
    let total: usize = entries.iter().map(Entry::byte_len).sum();
    let mut done = 0;
    for (index, entry) in entries.iter().enumerate() {
        let bytes = (entry.read)()?;
        archive
            .start_file(format!("model/data/{index}"), options)
            .map_err(io)?;
        archive
            .write_all(&bytes)
            .map_err(Blip2Error::io(&temporary))?;
        done += bytes.len();
        progress(done as u64, total as u64);
    }
    let file = archive.finish().map_err(io)?;
    file.sync_all().map_err(Blip2Error::io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(Blip2Error::io(path))?;
    Ok(path.to_path_buf())
}

/// The pickle of `{"model": {key: tensor, …}}`, protocol 2.
fn pickle(entries: &[Entry], path: &Path) -> Result<Vec<u8>, Blip2Error> {
    let mut out = Pickle(vec![0x80, 2]);
    out.op(b'}').op(b'(').text("model").op(b'}').op(b'(');
    for (index, entry) in entries.iter().enumerate() {
        let storage = storage(entry, path)?;
        out.text(&entry.key).tensor(entry, index, storage);
        if entry.key == EMBEDDING {
            // One storage under two names, as torch keeps tied weights.
            out.text(&format!("opt_model.{TIED_OUTPUT}"))
                .tensor(entry, index, storage);
        }
    }
    out.op(b'u').op(b'u').op(b'.');
    Ok(out.0)
}

fn storage(entry: &Entry, path: &Path) -> Result<&'static str, Blip2Error> {
    Ok(match entry.dtype {
        DType::F64 => "DoubleStorage",
        DType::F32 => "FloatStorage",
        DType::F16 => "HalfStorage",
        DType::BF16 => "BFloat16Storage",
        other => {
            return Err(Blip2Error::DType {
                path: path.to_path_buf(),
                key: entry.key.clone(),
                found: format!("{other:?}"),
            });
        }
    })
}

/// Pickle opcodes, as Python's `pickletools` names them.
struct Pickle(Vec<u8>);

impl Pickle {
    /// An opcode without argument: `}` EMPTY_DICT, `(` MARK, `t` TUPLE, `)` EMPTY_TUPLE, `R`
    /// REDUCE, `Q` BINPERSID, `u` SETITEMS, `.` STOP, 0x89 NEWFALSE.
    fn op(&mut self, opcode: u8) -> &mut Self {
        self.0.push(opcode);
        self
    }

    /// BINUNICODE.
    fn text(&mut self, text: &str) -> &mut Self {
        self.op(b'X').0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    /// LONG1, of any size.
    fn number(&mut self, number: usize) -> &mut Self {
        // Nine bytes, so that the sign bit is never one of the number's.
        self.op(0x8a).op(9).0.extend((number as u64).to_le_bytes());
        self.op(0)
    }

    /// GLOBAL.
    fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.op(b'c')
            .0
            .extend(format!("{module}\n{name}\n").as_bytes());
        self
    }

    fn numbers(&mut self, numbers: &[usize]) -> &mut Self {
        self.op(b'(');
        for &number in numbers {
            self.number(number);
        }
        self.op(b't')
    }

    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`.
    fn tensor(&mut self, entry: &Entry, index: usize, storage: &str) -> &mut Self {
        let count: usize = entry.shape.iter().product();
        let mut stride = vec![1; entry.shape.len()];
        for axis in (1..stride.len()).rev() {
            stride[axis - 1] = stride[axis] * entry.shape[axis];
        }
        self.global("torch._utils", "_rebuild_tensor_v2").op(b'(');
        self.op(b'(').text("storage").global("torch", storage);
        self.text(&index.to_string()).text("cpu").number(count);
        self.op(b't').op(b'Q');
        self.number(0)
            .numbers(&entry.shape)
            .numbers(&stride)
            .op(0x89);
        self.global("collections", "OrderedDict").op(b')').op(b'R');
        self.op(b't').op(b'R')
    }
}
