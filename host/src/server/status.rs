//! Every outcome, as the wire says it. The one place where errors become codes.
//!
//! On `clarifai.api.V2` an outcome is an in-band status; its `details` begin
//! with a stable reason in capitals, then a sentence that says what to do next.

use super::request::InputError;
use super::sent::URLS_MAX;
use crate::auth::AuthError;
use crate::call::{End, GuestError, GuestErrorCode, Phase, Verdict};
use crate::deploy::{ComputeError, LeaseError, ModelError, Resource, StartError};
use crate::fetch::FetchError;
use crate::proto::clarifai::api::status::{Status, StatusCode};
use crate::store::StoreError;
use crate::text::with_causes;
use crate::upload::UploadError;
use crate::worker::{OneShotError, OverLimit, StartFailure};

/// An outcome: the code, the reason and the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: StatusCode,
    pub(crate) reason: &'static str,
    pub(crate) text: String,
}

impl Outcome {
    pub(crate) fn new(code: StatusCode, reason: &'static str, text: impl Into<String>) -> Self {
        Self { code, reason, text: text.into() }
    }

    /// It worked.
    pub(crate) fn success() -> Self {
        Self::new(StatusCode::Success, "", "")
    }

    /// Some inputs of a batch failed, others did not.
    pub(crate) fn mixed() -> Self {
        let text = "some inputs failed; see the status of each output";
        Self::new(StatusCode::MixedStatus, "MIXED", text)
    }

    /// Every input of a batch failed.
    pub(crate) fn all_failed() -> Self {
        let text = "every input failed; see the status of each output";
        Self::new(StatusCode::Failure, "ALL_FAILED", text)
    }

    /// A request that is wrong as a whole.
    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::PredictInvalidRequest, "INVALID_REQUEST", text)
    }

    /// Neither side of a stream has said anything for too long.
    pub(crate) fn silent() -> Self {
        let text = "the stream was silent for too long; send messages, or end it";
        Self::new(StatusCode::RpcRequestTimeout, "IDLE", text)
    }

    /// A message of a stream for which there is no room. Not one that clients try
    /// again: what they have sent before would be lost.
    pub(crate) fn no_room(text: impl Into<String>) -> Self {
        Self::new(StatusCode::InternalResourceExhausted, "NO_ROOM", text)
    }

    /// A request with more URLs than one may have.
    pub(crate) fn too_many_urls() -> Self {
        let text = format!("the request has more than {URLS_MAX} URLs; split it, or send bytes");
        Self::new(StatusCode::InputOverLimit, "TOO_MANY_URLS", text)
    }

    /// A fault of this host. The text is fixed: what happened is in the log.
    pub(crate) fn host_bug() -> Self {
        let text = "the host failed; its log says why under this req_id";
        Self::new(StatusCode::InternalServerIssue, "HOST_BUG", text)
    }

    /// The disk of this host fails. The text is fixed, as above.
    pub(crate) fn host_disk(code: StatusCode) -> Self {
        let text =
            "the host cannot use its disk, which may be full; its operator has to look at it";
        Self::new(code, "HOST_DISK", text)
    }

    /// What tells a client to fall back to plain inputs.
    pub(crate) fn no_typed_methods() -> Self {
        let text = "the model has no typed methods; call it with plain inputs";
        Self::new(StatusCode::InputUnsupportedFormat, "NO_TYPED_METHODS", text)
    }

    /// A typed call that the model does not have.
    pub(crate) fn no_such_method(text: String) -> Self {
        Self::new(StatusCode::PredictInvalidRequest, "NO_SUCH_METHOD", text)
    }

    pub(crate) fn no_such_model_type() -> Self {
        let text = "there is no such model type";
        Self::new(StatusCode::ConnDoesNotExist, "NO_SUCH_MODEL_TYPE", text)
    }

    pub(crate) fn no_such_app() -> Self {
        let text = "there is no such app, or it is not yours";
        Self::new(StatusCode::ConnDoesNotExist, "NO_SUCH_APP", text)
    }

    pub(crate) fn no_such_user() -> Self {
        let text = "there is no such user, or it is not you; ask for `me`";
        Self::new(StatusCode::ConnDoesNotExist, "NO_SUCH_USER", text)
    }

    /// The same in a form that clients do not try again, where some of the call would
    /// be done twice, or is lost.
    pub(crate) fn not_retried(self) -> Self {
        match self.code {
            StatusCode::ModelBusyPleaseRetry => {
                Self { code: StatusCode::ModelPredictionFailed, ..self }
            }
            _ => self,
        }
    }

    pub(crate) fn is_success(&self) -> bool {
        self.code == StatusCode::Success
    }

    /// The same for services that have no status in their messages. Codes are
    /// those of `google.rpc.Code`; the text begins with the reason.
    pub(crate) fn grpc(&self) -> tonic::Status {
        use tonic::Code;
        let code = match self.code {
            StatusCode::Success => Code::Ok,
            StatusCode::ConnKeyInvalid => Code::Unauthenticated,
            StatusCode::ConnInsufficientScopes => Code::PermissionDenied,
            StatusCode::ConnDoesNotExist | StatusCode::ModelDoesNotExist => Code::NotFound,
            StatusCode::ConnInvalidRequest => Code::FailedPrecondition,
            StatusCode::PredictInvalidRequest | StatusCode::ModelInvalidArgument => {
                Code::InvalidArgument
            }
            StatusCode::ConnThrottled => Code::ResourceExhausted,
            // Nothing else is an outcome there.
            _ => Code::Internal,
        };
        // Here an answer has no `req_id` to look for.
        let text = match self.code {
            StatusCode::InternalServerIssue => self.text.replace(" under this req_id", ""),
            _ => self.text.clone(),
        };
        tonic::Status::new(code, format!("{}: {text}", self.reason))
    }

    /// Somebody who may has ended the call.
    pub(crate) fn ended_by_others() -> Self {
        let text = "the call was ended by its owner or the operator";
        Self::new(StatusCode::ModelPredictionFailed, "CANCELLED", text)
    }

    /// The message of the wire.
    pub(crate) fn status(&self, req_id: &str) -> Status {
        let details = match self.reason {
            "" => String::new(),
            reason => format!("{reason}: {}", self.text),
        };
        Status {
            code: self.code as i32,
            description: description(self.code).to_owned(),
            details,
            req_id: req_id.to_owned(),
            ..Status::default()
        }
    }
}

/// What a code means, for a person who meets it for the first time.
fn description(code: StatusCode) -> &'static str {
    match code {
        StatusCode::Success => "Ok",
        StatusCode::MixedStatus => "Some inputs failed",
        StatusCode::Failure => "Failure",
        StatusCode::ConnKeyInvalid => "The token is missing or not valid",
        StatusCode::ConnThrottled => "A limit is reached",
        StatusCode::ConnDoesNotExist => "Does not exist",
        StatusCode::ConnInsufficientScopes => "The token is not for this",
        StatusCode::ConnInvalidRequest => "The request is not valid",
        StatusCode::ModelDoesNotExist => "Model does not exist",
        StatusCode::ModelBuilding => "The model is being built",
        StatusCode::ModelBuildingFailed => "The model cannot be built",
        StatusCode::ModelNotDeployed => "The model cannot be called",
        StatusCode::ModelInvalidArgument => "The request about the model is not valid",
        StatusCode::UploadInProgress => "Upload in progress",
        StatusCode::UploadFailed => "Upload failed",
        StatusCode::ModelTrained => "Model is ready",
        StatusCode::ModelDeploymentFailed => "The model cannot be loaded",
        StatusCode::ModelPredictionFailed => "Model prediction failed",
        StatusCode::ModelBusyPleaseRetry => "Model is busy, please retry",
        StatusCode::NodepoolDoesNotExist => "Nodepool does not exist",
        StatusCode::NodepoolInvalidArgument => "The nodepool cannot be so",
        StatusCode::ComputeClusterDoesNotExist => "Compute cluster does not exist",
        StatusCode::ComputeClusterInvalidArgument => "The compute cluster cannot be so",
        StatusCode::DeploymentDoesNotExist => "Deployment does not exist",
        StatusCode::DeploymentInvalidArgument => "The deployment cannot be so",
        StatusCode::DeploymentInvalidRequest => "The deployment cannot be asked for this",
        StatusCode::InputDownloadFailed => "The URL of an input cannot be downloaded",
        StatusCode::InputUnsupportedFormat => "Input has an unsupported format",
        StatusCode::InputInvalidArgument => "Input is not valid",
        StatusCode::InputOverLimit => "Input is over a limit",
        StatusCode::InputInvalidUrl => "The URL of an input is not fetched",
        StatusCode::PredictInvalidRequest => "The request is not valid",
        StatusCode::RpcRequestQueueFull => "The queue of the model is full",
        StatusCode::RpcRequestTimeout => "The request timed out",
        StatusCode::InternalServerIssue => "Internal server issue",
        StatusCode::InternalResourceExhausted => "A limit of the model is reached",
        other => other.as_str_name(),
    }
}

impl From<AuthError> for Outcome {
    /// One answer for every bad token, so that nothing is learnt from it.
    fn from(error: AuthError) -> Self {
        let (code, reason) = match error {
            AuthError::Refused => (StatusCode::ConnKeyInvalid, "TOKEN_INVALID"),
            AuthError::Scope(_) => (StatusCode::ConnInsufficientScopes, "SCOPE"),
        };
        Self::new(code, reason, error.to_string())
    }
}

impl From<LeaseError> for Outcome {
    fn from(error: LeaseError) -> Self {
        let (code, reason) = match &error {
            LeaseError::NoSuchModel => (StatusCode::ModelDoesNotExist, "NO_SUCH_MODEL"),
            LeaseError::NoSuchVersion => (StatusCode::ModelDoesNotExist, "NO_SUCH_VERSION"),
            LeaseError::NoVersion => (StatusCode::ModelNotDeployed, "NO_VERSION"),
            LeaseError::Stopped | LeaseError::StoppedByOperator => {
                (StatusCode::ModelNotDeployed, "STOPPED")
            }
            LeaseError::Start(error) => return Self::from(error.as_ref()),
            LeaseError::NoSuchNodepool(_) => (StatusCode::NodepoolDoesNotExist, "NO_SUCH_NODEPOOL"),
            LeaseError::NoSuchDeployment(_) => {
                (StatusCode::DeploymentDoesNotExist, "NO_SUCH_DEPLOYMENT")
            }
            LeaseError::NotDeployedThere(_) => (StatusCode::ModelNotDeployed, "NOT_DEPLOYED_THERE"),
            LeaseError::OtherVersion { .. } => {
                (StatusCode::DeploymentInvalidRequest, "OTHER_VERSION")
            }
            LeaseError::Full(full) if full.is_for_ever() => {
                (StatusCode::ModelDeploymentFailed, "NO_ROOM")
            }
            LeaseError::Full(_) | LeaseError::NoRoom => {
                (StatusCode::ModelBusyPleaseRetry, "NO_ROOM")
            }
            LeaseError::Busy | LeaseError::Quota(_) => (StatusCode::ModelBusyPleaseRetry, "QUOTA"),
            LeaseError::DeadlinePassed => (StatusCode::RpcRequestTimeout, "WALL_DEADLINE"),
        };
        Self::new(code, reason, error.to_string())
    }
}

impl From<&StartError> for Outcome {
    fn from(error: &StartError) -> Self {
        let failed = StatusCode::ModelDeploymentFailed;
        match error {
            StartError::Corrupt(_) => Self::new(failed, "STORE_CORRUPT", error.to_string()),
            StartError::Compile(OneShotError::Limit(_)) => {
                Self::new(failed, "COMPILE_LIMIT", error.to_string())
            }
            StartError::Compile(OneShotError::Refused(_))
            | StartError::Replica(StartFailure::Admit(_) | StartFailure::Refused(_))
            | StartError::Folder(_) => Self::new(failed, "NOT_ADMITTED", error.to_string()),
            StartError::Compile(OneShotError::Died(_) | OneShotError::Start(_)) => {
                Self::new(failed, "WORKER_CRASHED", error.to_string())
            }
            StartError::Accelerators(_) => Self::new(failed, "FEATURE_DISABLED", error.to_string()),
            // What a process says last is its owner's and its operator's.
            StartError::Replica(StartFailure::Process(_) | StartFailure::Host(_)) => {
                Self::new(failed, "WORKER_CRASHED", "the process of the model does not start")
            }
            StartError::Crashes(_) => {
                let text = "its processes have crashed three times within a minute, so it is left \
                            alone for one";
                Self::new(failed, "WORKER_CRASHED", text)
            }
            // A path of the host's disk is nothing for a caller.
            StartError::Store(error) if error.is_of_disk() => Self::host_disk(failed),
            StartError::Store(_) | StartError::Memory(_) | StartError::Panicked => Self::host_bug(),
            StartError::Stopping => Self::new(failed, "DRAINING", error.to_string()),
        }
    }
}

impl From<UploadError> for Outcome {
    fn from(error: UploadError) -> Self {
        let (code, reason) = match &error {
            UploadError::NotYours => (StatusCode::ModelDoesNotExist, "NO_SUCH_MODEL"),
            UploadError::Full(_) => (StatusCode::ConnThrottled, "NO_ROOM"),
            UploadError::UnderWay | UploadError::Busy | UploadError::Quota(_) => {
                (StatusCode::ConnThrottled, "QUOTA")
            }
            UploadError::Size { .. }
            | UploadError::Length { .. }
            | UploadError::Digest
            | UploadError::Archive(_) => (StatusCode::UploadFailed, "UPLOAD_REFUSED"),
            UploadError::Folder => (StatusCode::UploadFailed, "UPLOAD_REFUSED"),
            UploadError::Stopping => (StatusCode::UploadFailed, "DRAINING"),
            UploadError::Panicked => return Self::host_bug(),
            UploadError::Store(StoreError::Absent { .. } | StoreError::Exists { .. }) => {
                (StatusCode::UploadFailed, "UPLOAD_REFUSED")
            }
            UploadError::Staging { .. } => {
                tracing::error!("{}", with_causes(&error));
                return Self::new(
                    StatusCode::UploadFailed,
                    "HOST_DISK",
                    "the host cannot keep the archive; its operator has to look at its disk",
                );
            }
            UploadError::Store(of_store) => {
                tracing::error!("{}", with_causes(&error));
                return match of_store.is_of_disk() {
                    true => Self::host_disk(StatusCode::UploadFailed),
                    false => Self::host_bug(),
                };
            }
        };
        Self::new(code, reason, error.to_string())
    }
}

impl From<ModelError> for Outcome {
    fn from(error: ModelError) -> Self {
        let text = error.to_string();
        let (code, reason) = match error {
            ModelError::NoSuchModel => (StatusCode::ModelDoesNotExist, "NO_SUCH_MODEL"),
            ModelError::NoSuchVersion => (StatusCode::ModelDoesNotExist, "NO_SUCH_VERSION"),
            ModelError::NoOlderVersion => (StatusCode::ModelInvalidArgument, "NO_OLDER_VERSION"),
            ModelError::Folder => (StatusCode::ModelInvalidArgument, "SERVED_FROM_FOLDER"),
            ModelError::StoppedByOperator => {
                (StatusCode::ConnInsufficientScopes, "STOPPED_BY_OPERATOR")
            }
            ModelError::Store(error) => return error.into(),
        };
        Self::new(code, reason, text)
    }
}

impl From<ComputeError> for Outcome {
    fn from(error: ComputeError) -> Self {
        let text = error.to_string();
        let (code, reason) = match error {
            ComputeError::Absent { kind, .. } => {
                let code = match kind {
                    Resource::Cluster => StatusCode::ComputeClusterDoesNotExist,
                    Resource::Nodepool => StatusCode::NodepoolDoesNotExist,
                    Resource::Deployment => StatusCode::DeploymentDoesNotExist,
                };
                (code, "NOT_FOUND")
            }
            ComputeError::Invalid { kind, .. } => {
                let code = match kind {
                    Resource::Cluster => StatusCode::ComputeClusterInvalidArgument,
                    Resource::Nodepool => StatusCode::NodepoolInvalidArgument,
                    Resource::Deployment => StatusCode::DeploymentInvalidArgument,
                };
                (code, "INVALID_REQUEST")
            }
            ComputeError::Full(_) => (StatusCode::DeploymentInvalidRequest, "NO_ROOM"),
            ComputeError::Start(error) => return Self::from(&error),
            ComputeError::Store(error) => return error.into(),
        };
        Self::new(code, reason, text)
    }
}

impl From<StoreError> for Outcome {
    /// What a caller asked for wrongly is said; what the disk does is in the log.
    fn from(error: StoreError) -> Self {
        let (code, reason) = match &error {
            StoreError::Absent { .. } => (StatusCode::ConnDoesNotExist, "NOT_FOUND"),
            StoreError::Exists { .. } => (StatusCode::ConnInvalidRequest, "EXISTS"),
            StoreError::Used { .. } => (StatusCode::ConnInvalidRequest, "IN_USE"),
            // The path is the operator's own, and only the cause says what to do.
            StoreError::Unwritable { .. } if !error.is_of_disk() => {
                let text = with_causes(&error);
                return Self::new(StatusCode::ConnInvalidRequest, "NOT_WRITABLE", text);
            }
            StoreError::OtherContent { .. } => (StatusCode::ConnInvalidRequest, "OTHER_CONTENT"),
            StoreError::Directory { .. }
            | StoreError::NoStore { .. }
            | StoreError::InUse { .. }
            | StoreError::Permissions { .. }
            | StoreError::Damaged { .. }
            | StoreError::DatabaseDamaged { .. }
            | StoreError::File { .. }
            | StoreError::Unwritable { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::Newer { .. }
            | StoreError::Database { .. }
            | StoreError::Backup { .. }
            | StoreError::Random(_) => {
                tracing::error!("{}", with_causes(&error));
                return match error.is_of_disk() {
                    true => Self::host_disk(StatusCode::InternalServerIssue),
                    false => Self::host_bug(),
                };
            }
        };
        Self::new(code, reason, error.to_string())
    }
}

impl From<OverLimit> for Outcome {
    fn from(over: OverLimit) -> Self {
        Self::new(
            StatusCode::InternalResourceExhausted,
            "MEMORY_LIMIT",
            format!("{over}; raise cpu_memory or send less at a time"),
        )
    }
}

impl From<&InputError> for Outcome {
    fn from(error: &InputError) -> Self {
        let (code, reason) = match error {
            InputError::Empty => (StatusCode::InputInvalidArgument, "EMPTY_INPUT"),
            InputError::Url(error) => of_fetch(error),
            InputError::UrlNotTaken => (StatusCode::InputInvalidUrl, "URL_NOT_FETCHED"),
            InputError::UrlAndBytes { .. } => (StatusCode::InputInvalidArgument, "URL_AND_BYTES"),
            InputError::Number(_) => (StatusCode::InputInvalidArgument, "INVALID_NUMBER"),
            InputError::TooDeep => (StatusCode::InputOverLimit, "TOO_DEEP"),
            InputError::PathTooLong => (StatusCode::InputOverLimit, "PATH_TOO_LONG"),
            InputError::TooManyParts => (StatusCode::InputOverLimit, "TOO_MANY_PARTS"),
            InputError::TooManyArguments { .. }
            | InputError::UnknownArgument { .. }
            | InputError::MissingArgument { .. }
            | InputError::TwiceGiven { .. }
            | InputError::Left { .. }
            | InputError::WrongType { .. }
            | InputError::NoValue { .. } => (StatusCode::InputInvalidArgument, "INVALID_ARGUMENT"),
        };
        Self::new(code, reason, error.to_string())
    }
}

/// What may not be fetched, what could not be, and what is too much.
fn of_fetch(error: &FetchError) -> (StatusCode, &'static str) {
    match error {
        FetchError::Off { .. } | FetchError::HttpOff { .. } | FetchError::Scheme => {
            (StatusCode::InputInvalidUrl, "URL_NOT_FETCHED")
        }
        FetchError::Address { .. } => (StatusCode::InputInvalidUrl, "URL_NOT_PUBLIC"),
        FetchError::Malformed(_)
        | FetchError::Credentials
        | FetchError::TooLong { .. }
        | FetchError::LongHost { .. }
        | FetchError::Data(_)
        | FetchError::DataType { .. } => (StatusCode::InputInvalidUrl, "URL_INVALID"),
        FetchError::Unreachable { .. }
        | FetchError::Certificate { .. }
        | FetchError::Broken { .. }
        | FetchError::Status { .. }
        | FetchError::Redirects { .. }
        | FetchError::TooSlow => (StatusCode::InputDownloadFailed, "URL_FAILED"),
        FetchError::Encoding { .. } | FetchError::ContentType { .. } | FetchError::NotUtf8 => {
            (StatusCode::InputDownloadFailed, "URL_CONTENT_TYPE")
        }
        FetchError::TooLarge { .. } => (StatusCode::InputOverLimit, "URL_TOO_LARGE"),
    }
}

impl From<&GuestError> for Outcome {
    fn from(error: &GuestError) -> Self {
        let code = match error.code {
            GuestErrorCode::InvalidArgument => StatusCode::InputInvalidArgument,
            GuestErrorCode::OutOfRange => StatusCode::InputOverLimit,
            GuestErrorCode::Unsupported => StatusCode::InputUnsupportedFormat,
            GuestErrorCode::FailedPrecondition | GuestErrorCode::Failed => {
                StatusCode::ModelPredictionFailed
            }
        };
        Self::new(code, "GUEST_ERROR", error.message.clone())
    }
}

impl From<&Verdict> for Outcome {
    fn from(verdict: &Verdict) -> Self {
        let mut outcome = Self::from(&verdict.end);
        if verdict.phase == Phase::Load && outcome.code != StatusCode::InternalServerIssue {
            outcome.text = format!("in load-model: {}", outcome.text);
            // A call that has waited for its place may have no time left to load;
            // that says nothing against the model.
            // Nor does a device that fails.
            let says_nothing = [StatusCode::RpcRequestTimeout, StatusCode::ModelBusyPleaseRetry];
            if !says_nothing.contains(&outcome.code) {
                outcome.code = StatusCode::ModelDeploymentFailed;
            }
        }
        outcome
    }
}

impl From<&End> for Outcome {
    fn from(end: &End) -> Self {
        let exhausted = StatusCode::InternalResourceExhausted;
        let failed = StatusCode::ModelPredictionFailed;
        match end {
            End::Done => Self::success(),
            End::GuestError(error) => Self::from(error),
            End::Trap(trap) => Self::new(
                failed,
                "GUEST_TRAP",
                format!("the model's code trapped ({trap}); its author must mend it"),
            ),
            End::Panic(_) => Self::new(
                failed,
                "GUEST_TRAP",
                "the model's code panicked; `ringfence logs` has its message",
            ),
            End::Exit(code) => Self::new(
                failed,
                "GUEST_TRAP",
                format!("the model's code called exit({code}); it must return instead"),
            ),
            End::Contract(text) => Self::new(
                failed,
                "GUEST_TRAP",
                format!("the model broke the contract of its world: {text}"),
            ),
            End::FuelExhausted { fuel_max } => Self::new(
                exhausted,
                "FUEL_EXHAUSTED",
                format!("the call burnt all of its {fuel_max} fuel; raise cpu_limit or do less"),
            ),
            End::DeadlinePassed => Self::new(
                StatusCode::RpcRequestTimeout,
                "WALL_DEADLINE",
                "the call passed its deadline, the client's own or ringfence.call_timeout; raise it \
                 or do less",
            ),
            End::MemoryLimit { holder, memory_bytes_max } => Self::new(
                exhausted,
                "MEMORY_LIMIT",
                format!(
                    "{} would exceed the limit of {memory_bytes_max} bytes; raise {}",
                    holder.as_str(),
                    holder.limit_name()
                ),
            ),
            End::HandleLimit { handles_max } => Self::new(
                exhausted,
                "HANDLE_LIMIT",
                format!("the model holds more than {handles_max} handles; it must drop them"),
            ),
            End::OutputLimit { output_bytes_max } => Self::new(
                exhausted,
                "OUTPUT_LIMIT",
                format!(
                    "the outputs exceed {output_bytes_max} bytes; raise ringfence.max_output_bytes"
                ),
            ),
            End::HostcallLimit { hostcall_bytes_max } => Self::new(
                exhausted,
                "MEMORY_LIMIT",
                format!(
                    "the model handed the host more than {hostcall_bytes_max} bytes at once; \
                     its author must split it"
                ),
            ),
            End::Unread { .. } => Self::new(
                StatusCode::RpcRequestTimeout,
                "UNREAD",
                "the outputs were not read in time; read them as they come",
            ),
            End::Cancelled => Self::new(failed, "CANCELLED", "the client ended the call"),
            // The same goes for a device: by then another process has begun with it anew.
            End::DeviceLost(_) => Self::new(
                StatusCode::ModelBusyPleaseRetry,
                "DEVICE_LOST",
                "an accelerator of the model failed; try again",
            ),
            // Clients try a busy model again, and then it has another process.
            End::WorkerDied(_) => Self::new(
                StatusCode::ModelBusyPleaseRetry,
                "WORKER_CRASHED",
                "the process that ran the call ended; try again",
            ),
            End::HostBug(_) => Self::host_bug(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_host_tells_nothing_of_itself() {
        for phase in [Phase::Load, Phase::Call] {
            let end = End::HostBug("at /home/operator/secret.rs".to_owned());
            let verdict = Verdict::early(end, phase);
            let status = Outcome::from(&verdict).status("r");
            assert_eq!(status.code(), StatusCode::InternalServerIssue);
            assert!(status.details.starts_with("HOST_BUG"), "{status:?}");
            assert!(!format!("{status:?}").contains("secret"), "{status:?}");
        }
    }
}
