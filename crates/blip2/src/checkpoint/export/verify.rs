//! Reading back what was written.

use std::collections::BTreeMap;
use std::path::Path;

use super::WeightsDType;
use super::entries::entries;
use crate::Blip2Error;
use crate::checkpoint::fill::Expected;
use crate::checkpoint::names::{Address, Layout};
use crate::checkpoint::weights::Weights;

/// Compares every tensor of the checkpoint in `folder`, which is `written`, with `weights`, bit by bit in the precision
/// that was written.
pub(super) fn verify(
    weights: &Weights,
    written: &Weights,
    folder: &Path,
    expected: &BTreeMap<Address, Expected>,
    dtype: Option<WeightsDType>,
) -> Result<(), Blip2Error> {
    let format = |reason: String| Blip2Error::Format {
        path: folder.to_path_buf(),
        reason,
    };
    if let Some(key) = written.unexpected.first() {
        return Err(format(format!(
            "holds `{key}`, which was not to be written"
        )));
    }
    // Both sides by our names and in torch's layout. A bias on attention's keys does nothing, and
    // some layouts have no place for it.
    let before = entries(weights, expected, Layout::Native, dtype, false)?;
    let after = entries(written, expected, Layout::Native, dtype, false)?;
    for (before, after) in before.iter().zip(&after) {
        let (mut source, target) = ((before.read)()?, (after.read)()?);
        if written.layout.has_no_key_bias() && before.key.ends_with(".qkv.bias") {
            let third = source.len() / 3;
            source[third..2 * third].fill(0);
        }
        if source != target || before.dtype != after.dtype {
            return Err(format(format!(
                "`{}` came back different: the disk or its connection may be faulty",
                before.key
            )));
        }
    }
    Ok(())
}
