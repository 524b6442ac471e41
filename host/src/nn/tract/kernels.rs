//! What tract runs on NVIDIA's devices, compiled for one kind of them by NVRTC.
//!
//! Owns where tract looks for it. tract takes what it finds there for its own, whoever has
//! written it, and compiles what it does not find; so it has to find all of it in a place
//! that only the host writes to.

use crate::devices::find_compiled_in;
use cudarc::nvrtc::result::{NvrtcError, compile_program, destroy_program, get_program_log};
use cudarc::nvrtc::sys::{
    is_culib_present, nvrtcCreateProgram, nvrtcGetCUBIN, nvrtcGetCUBINSize, nvrtcProgram,
    nvrtcVersion,
};
use std::ffi::{CStr, CString, NulError};
use std::path::{Path, PathBuf};
use tract_cuda::kernels::{COMMON_H, LibraryName, cubin_dir};

/// The dialect that its sources are in.
const DIALECT: &str = "--std=c++17";

/// What its sources call the header that most of them include.
const HEADER: &CStr = c"common.cuh";

/// Bytes of what a compiler says that are told.
const LOG_BYTES_MAX: usize = 2000;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The compiler for devices is not installed.
    #[error("there is no NVRTC, which is part of CUDA: its libnvrtc.so cannot be loaded")]
    NoCompiler,
    /// There are fewer.
    #[error("there is no library of kernels {0}")]
    Number(usize),
    /// It does not compile.
    #[error("NVRTC refuses a library of kernels: {0}")]
    Refused(String),
    /// It fails.
    #[error("NVRTC fails: {0}")]
    Failed(#[from] NvrtcError),
    /// What it is given is no text of C.
    #[error(transparent)]
    Text(#[from] NulError),
}

/// How many libraries of kernels there are.
pub fn kernels() -> usize {
    all().count()
}

/// All that tract ever loads: those that it wants at once, and one that few models need.
fn all() -> impl Iterator<Item = LibraryName> {
    LibraryName::EAGER.into_iter().chain([LibraryName::GdnRecurrent])
}

/// One library of kernels, for devices of one capability.
#[derive(Debug)]
pub struct Kernel {
    /// Where tract looks for it, below the folder that it finds compiled files in.
    pub path: PathBuf,
    library: LibraryName,
    options: [String; 2],
}

/// One of them, by its number. No other thread may have been started.
pub fn kernel(number: usize, (major, minor): (u32, u32)) -> Result<Kernel, KernelError> {
    let library = all().nth(number).ok_or(KernelError::Number(number))?;
    let root = Path::new("/");
    find_compiled_in(root);
    let version = version()?;
    let target = format!("sm_{major}{minor}");
    let compiler = format!("nvrtc-{}.{}", version.0, version.1);
    let options = [DIALECT.to_owned(), format!("--gpu-architecture={target}")];
    // As tract makes the name of the file up.
    let key = format!("{} {compiler}", options.join(" "));
    let folder = cubin_dir().join(&target).join(&compiler);
    let path = library.cubin_path(&folder, &key);
    let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
    Ok(Kernel { path, library, options })
}

impl Kernel {
    /// Compiles it with headers of CUDA's from these folders, to a CUBIN file.
    pub fn compile(self, headers: &[PathBuf]) -> Result<Vec<u8>, KernelError> {
        let found_in = headers.iter().map(|folder| format!("-I{}", folder.display()));
        let options: Vec<String> = self.options.into_iter().chain(found_in).collect();
        compile(self.library.content(), &options)
    }
}

#[allow(
    unsafe_code,
    reason = "JUSTIFICATION: NVRTC is a library of C, of which cudarc wraps the half; it is \
              handed what the calls below own, and texts that outlive the program"
)]
fn version() -> Result<(i32, i32), KernelError> {
    // SAFETY: the library is looked for, and stays loaded.
    if !unsafe { is_culib_present() } {
        return Err(KernelError::NoCompiler);
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes two numbers.
    unsafe { nvrtcVersion(&raw mut major, &raw mut minor) }.result()?;
    Ok((major, minor))
}

#[allow(unsafe_code, reason = "JUSTIFICATION: as above")]
fn compile(source: &str, options: &[String]) -> Result<Vec<u8>, KernelError> {
    let (source, header) = (CString::new(source)?, CString::new(COMMON_H)?);
    let (headers, names) = ([header.as_ptr()], [HEADER.as_ptr()]);
    let mut program = std::ptr::null_mut();
    // SAFETY: the texts end, and outlive the program; there is one header and one name.
    unsafe {
        nvrtcCreateProgram(
            &raw mut program,
            source.as_ptr(),
            std::ptr::null(),
            1,
            headers.as_ptr(),
            names.as_ptr(),
        )
    }
    .result()?;
    let compiled = || {
        // SAFETY: the program is one, and there until the end of this function.
        if unsafe { compile_program(program, options) }.is_err() {
            return Err(KernelError::Refused(log(program)));
        }
        let mut length = 0;
        // SAFETY: as above; it writes a number.
        unsafe { nvrtcGetCUBINSize(program, &raw mut length) }.result()?;
        let mut bytes = vec![0_u8; length];
        // SAFETY: as above; there is room for as many bytes as it has said.
        unsafe { nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast()) }.result()?;
        Ok(bytes)
    };
    let compiled = compiled();
    // SAFETY: as above; it is not used again.
    unsafe { destroy_program(program) }?;
    compiled
}

#[allow(unsafe_code, reason = "JUSTIFICATION: as above")]
fn log(program: nvrtcProgram) -> String {
    // SAFETY: the program is one that still is there.
    let log = unsafe { get_program_log(program) }.unwrap_or_default();
    let bytes: Vec<u8> = log.into_iter().flat_map(|byte| byte.to_ne_bytes()).collect();
    let mut log = String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned();
    crate::text::cut(&mut log, LOG_BYTES_MAX);
    crate::text::escape_controls(&log)
}
