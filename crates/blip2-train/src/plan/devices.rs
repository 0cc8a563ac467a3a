//! Devices that a plan can be made for, by their makers' data sheets.

use super::work::{Operation, Precision, Product};
use crate::RunError;

/// The part of the peak that products of matrices of these sizes reach; the rest goes into edges of
/// matrices and the start of kernels. Assumed, as the other two: nothing was measured on these devices.
const OF_PEAK: f64 = 0.5;
/// The part of the peak that attention reaches, with its softmax between two thin products.
const OF_PEAK_IN_ATTENTION: f64 = 0.2;
/// The part of the bandwidth that a pass over memory reaches.
const OF_BANDWIDTH: f64 = 0.8;
/// Seconds from one kernel to the next.
const LAUNCH: f64 = 5e-6;

/// What a data sheet says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataSheet {
    /// The word of `--device-type`.
    pub word: &'static str,
    /// The product.
    pub name: &'static str,
    /// 10¹² floating-point operations a second in f32, without tensor cores.
    pub f32_tflops: f64,
    /// The same in bf16 (f16 where there is none) with sums in f32, of dense matrices.
    pub bf16_tflops: f64,
    /// Of memory, in 10⁹ bytes a second.
    pub bandwidth_gb: f64,
    /// Of memory, in 10⁹ bytes.
    pub memory_gb: f64,
    /// Of the board.
    pub watts: f64,
    /// Where this stands.
    pub source: &'static str,
}

const fn sheet(
    word: &'static str,
    name: &'static str,
    [f32_tflops, bf16_tflops]: [f64; 2],
    [bandwidth_gb, memory_gb, watts]: [f64; 3],
    source: &'static str,
) -> DataSheet {
    DataSheet {
        word,
        name,
        f32_tflops,
        bf16_tflops,
        bandwidth_gb,
        memory_gb,
        watts,
        source,
    }
}

/// All of them. Where a sheet gives tensor cores "with sparsity", half of it stands here.
pub const DATA_SHEETS: &[DataSheet] = &[
    sheet(
        "h200",
        "NVIDIA H200 SXM",
        [67.0, 989.0],
        [4800.0, 141.0, 700.0],
        "NVIDIA H200 Tensor Core GPU datasheet",
    ),
    sheet(
        "h100",
        "NVIDIA H100 SXM",
        [67.0, 989.0],
        [3350.0, 80.0, 700.0],
        "NVIDIA H100 Tensor Core GPU datasheet",
    ),
    sheet(
        "h100-pcie",
        "NVIDIA H100 PCIe",
        [51.0, 756.0],
        [2000.0, 80.0, 350.0],
        "NVIDIA H100 Tensor Core GPU datasheet",
    ),
    sheet(
        "a100-80",
        "NVIDIA A100 SXM 80 GB",
        [19.5, 312.0],
        [2039.0, 80.0, 400.0],
        "NVIDIA A100 Tensor Core GPU datasheet",
    ),
    sheet(
        "a100-40",
        "NVIDIA A100 SXM 40 GB",
        [19.5, 312.0],
        [1555.0, 40.0, 400.0],
        "NVIDIA A100 Tensor Core GPU datasheet",
    ),
    sheet(
        "l40s",
        "NVIDIA L40S",
        [91.6, 362.0],
        [864.0, 48.0, 350.0],
        "NVIDIA L40S datasheet",
    ),
    sheet(
        "l4",
        "NVIDIA L4",
        [30.3, 121.0],
        [300.0, 24.0, 72.0],
        "NVIDIA L4 Tensor Core GPU datasheet",
    ),
    sheet(
        "v100",
        "NVIDIA V100 SXM2 32 GB",
        [15.7, 125.0],
        [900.0, 32.0, 300.0],
        "NVIDIA V100 Tensor Core GPU datasheet",
    ),
    sheet(
        "t4",
        "NVIDIA T4",
        [8.1, 65.0],
        [320.0, 16.0, 70.0],
        "NVIDIA T4 Tensor Core GPU datasheet",
    ),
    sheet(
        "rtx4090",
        "NVIDIA GeForce RTX 4090",
        [82.6, 165.2],
        [1008.0, 24.0, 450.0],
        "NVIDIA Ada GPU architecture whitepaper, appendix A",
    ),
    sheet(
        "rtx3090",
        "NVIDIA GeForce RTX 3090",
        [35.6, 71.0],
        [936.0, 24.0, 350.0],
        "NVIDIA Ampere GA102 GPU architecture whitepaper, appendix A",
    ),
    sheet(
        "mi300x",
        "AMD Instinct MI300X",
        [163.4, 1307.4],
        [5300.0, 192.0, 750.0],
        "AMD Instinct MI300X accelerator data sheet",
    ),
];

/// The word for the machine at hand.
pub const THIS: &str = "this";

/// The sheet of the device called `word`.
///
/// # Errors
///
/// If there is none: the known words.
pub fn data_sheet(word: &str) -> Result<&'static DataSheet, RunError> {
    let found = DATA_SHEETS.iter().find(|sheet| sheet.word == word);
    found.ok_or_else(|| {
        let words: Vec<&str> = DATA_SHEETS.iter().map(|sheet| sheet.word).collect();
        RunError::Usage(format!(
            "--device-type {word}: known are {} and {THIS} (the machine at hand)",
            words.join(", ")
        ))
    })
}

impl DataSheet {
    /// Seconds that the arithmetic of an operation takes.
    pub fn compute_seconds(&self, operation: &Operation) -> f64 {
        let (tflops, part) = match operation {
            Operation::Product(Product {
                precision: Precision::Bf16,
                ..
            }) => (self.bf16_tflops, OF_PEAK),
            Operation::Attention(_) => (self.f32_tflops, OF_PEAK_IN_ATTENTION),
            _ => (self.f32_tflops, OF_PEAK),
        };
        operation.flops() / (tflops * 1e12 * part)
    }

    /// Seconds that its memory takes.
    pub fn bandwidth_seconds(&self, operation: &Operation) -> f64 {
        operation.bytes() / (self.bandwidth_gb * 1e9 * OF_BANDWIDTH)
    }

    /// Seconds of an operation: the longer of the two, and its start.
    pub fn seconds(&self, operation: &Operation) -> f64 {
        let (compute, bandwidth) = (
            self.compute_seconds(operation),
            self.bandwidth_seconds(operation),
        );
        compute.max(bandwidth) + LAUNCH
    }

    /// The assumptions in words.
    pub fn assumptions() -> String {
        format!(
            "assumed: products reach {:.0} % of the peak, attention {:.0} %, passes over memory \
             {:.0} % of the bandwidth; {:.0} µs a kernel",
            100.0 * OF_PEAK,
            100.0 * OF_PEAK_IN_ATTENTION,
            100.0 * OF_BANDWIDTH,
            1e6 * LAUNCH
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::work::{After, Layout};

    #[test]
    fn an_operation_takes_the_longer_of_arithmetic_and_memory() {
        let sheet = data_sheet("a100-40").unwrap();
        let product = |rows| {
            Operation::Product(Product {
                rows,
                inner: 4096,
                columns: 4096,
                precision: Precision::F32,
                weight_bits: 32,
                layout: Layout::Plain,
                after: After::Nothing,
            })
        };
        // One row reads the whole weight for two operations a number.
        let (one, many) = (product(1), product(4096));
        assert_eq!(sheet.seconds(&one), sheet.bandwidth_seconds(&one) + LAUNCH);
        assert_eq!(sheet.seconds(&many), sheet.compute_seconds(&many) + LAUNCH);
        let by_hand = 2.0 * 4096f64.powi(3) / (19.5e12 * OF_PEAK);
        assert!((sheet.compute_seconds(&many) / by_hand - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_unknown_word_is_told_the_known_ones() {
        let error = data_sheet("h1000").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("rtx4090"), "{error}");
    }
}
