//! Who may call which RPC: one row for each.
//!
//! Whose things a caller may see or change is decided where they are; here it
//! is only whether the RPC may be called with such a token at all. An RPC
//! without a row is refused to everybody.

use crate::auth::Scope;

/// What an RPC asks of whoever calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing.
    Anyone,
    /// A token, whatever it is for.
    Caller,
    /// A token for this.
    Scope(Scope),
}

use Rule::{Anyone, Caller};

const PREDICT: Rule = Rule::Scope(Scope::Predict);
const UPLOAD: Rule = Rule::Scope(Scope::Upload);
const ADMIN: Rule = Rule::Scope(Scope::Admin);

const POLICY: &[(&str, Rule)] = &[
    ("/clarifai.api.V2/GetModel", Caller),
    ("/clarifai.api.V2/GetModelType", Caller),
    ("/clarifai.api.V2/ListModelTypes", Caller),
    ("/clarifai.api.V2/GetModelVersion", Caller),
    ("/clarifai.api.V2/GetUser", Caller),
    ("/clarifai.api.V2/ListModels", Caller),
    ("/clarifai.api.V2/ListModelVersions", Caller),
    ("/clarifai.api.V2/GetApp", Caller),
    ("/clarifai.api.V2/PostApps", UPLOAD),
    ("/clarifai.api.V2/PostModels", UPLOAD),
    ("/clarifai.api.V2/PostModelVersionsUpload", UPLOAD),
    ("/clarifai.api.V2/ListLogEntries", Caller),
    ("/clarifai.api.V2/PostComputeClusters", UPLOAD),
    ("/clarifai.api.V2/ListComputeClusters", Caller),
    ("/clarifai.api.V2/GetComputeCluster", Caller),
    ("/clarifai.api.V2/PatchComputeClusters", UPLOAD),
    ("/clarifai.api.V2/DeleteComputeClusters", UPLOAD),
    ("/clarifai.api.V2/PostNodepools", UPLOAD),
    ("/clarifai.api.V2/ListNodepools", Caller),
    ("/clarifai.api.V2/GetNodepool", Caller),
    ("/clarifai.api.V2/PatchNodepools", UPLOAD),
    ("/clarifai.api.V2/DeleteNodepools", UPLOAD),
    ("/clarifai.api.V2/PostDeployments", UPLOAD),
    ("/clarifai.api.V2/ListDeployments", Caller),
    ("/clarifai.api.V2/GetDeployment", Caller),
    ("/clarifai.api.V2/PatchDeployments", UPLOAD),
    ("/clarifai.api.V2/DeleteDeployments", UPLOAD),
    ("/clarifai.api.V2/PostModelOutputs", PREDICT),
    ("/clarifai.api.V2/GenerateModelOutputs", PREDICT),
    ("/clarifai.api.V2/StreamModelOutputs", PREDICT),
    ("/ringfence.v1.Operations/CreateUser", ADMIN),
    ("/ringfence.v1.Operations/ListUsers", ADMIN),
    ("/ringfence.v1.Operations/UpdateUser", ADMIN),
    ("/ringfence.v1.Operations/CreateToken", ADMIN),
    ("/ringfence.v1.Operations/ListTokens", ADMIN),
    ("/ringfence.v1.Operations/RevokeToken", ADMIN),
    ("/ringfence.v1.Operations/ListApps", Caller),
    ("/ringfence.v1.Operations/DeleteApp", UPLOAD),
    ("/ringfence.v1.Operations/ListModels", Caller),
    ("/ringfence.v1.Operations/ListVersions", Caller),
    ("/ringfence.v1.Operations/PromoteVersion", UPLOAD),
    ("/ringfence.v1.Operations/RollBackModel", UPLOAD),
    ("/ringfence.v1.Operations/StopModel", UPLOAD),
    ("/ringfence.v1.Operations/StartModel", UPLOAD),
    ("/ringfence.v1.Operations/DeleteModel", UPLOAD),
    ("/ringfence.v1.Operations/ShareModel", UPLOAD),
    ("/ringfence.v1.Operations/ListCalls", Caller),
    ("/ringfence.v1.Operations/CancelCall", PREDICT),
    ("/ringfence.v1.Operations/CheckStore", ADMIN),
    ("/ringfence.v1.Operations/CollectGarbage", ADMIN),
    ("/ringfence.v1.Operations/BackUpStore", ADMIN),
    ("/grpc.health.v1.Health/Check", Anyone),
    ("/grpc.health.v1.Health/Watch", Anyone),
    // Served where the operator asks for it only.
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Anyone),
];

/// The rule of a path, if there is such an RPC.
pub fn rule(path: &str) -> Option<Rule> {
    POLICY.iter().find(|(known, _)| *known == path).map(|(_, rule)| *rule)
}

/// RPCs to which a client sends a stream of messages; to all others it sends one.
const CLIENT_STREAMING: [&str; 3] = [
    "/clarifai.api.V2/PostModelVersionsUpload",
    "/clarifai.api.V2/StreamModelOutputs",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// Whether a client sends a stream of messages.
pub(super) fn sends_a_stream(path: &str) -> bool {
    CLIENT_STREAMING.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::DESCRIPTORS;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    /// The path of each RPC, and whether a client sends a stream to it.
    fn rpcs(descriptors: &[u8]) -> Vec<(String, bool)> {
        let set = FileDescriptorSet::decode(descriptors).unwrap();
        let mut rpcs = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let package = file.package();
                    let path = format!("/{package}.{}/{}", service.name(), method.name());
                    rpcs.push((path, method.client_streaming()));
                }
            }
        }
        rpcs
    }

    /// CLI-17.
    #[test]
    fn every_rpc_has_a_row_and_every_row_an_rpc() {
        let mut served = rpcs(DESCRIPTORS);
        assert!(served.len() > 20, "{served:?}");
        served.extend(rpcs(tonic_health::pb::FILE_DESCRIPTOR_SET));
        for (path, streams) in &served {
            assert!(rule(path).is_some(), "{path} has no row");
            assert_eq!(sends_a_stream(path), *streams, "{path}");
        }
        for (path, _) in POLICY.iter().filter(|(path, _)| !path.contains("reflection")) {
            assert!(served.iter().any(|(served, _)| served == path), "{path} is no RPC");
        }
    }

    #[test]
    fn what_changes_something_needs_a_scope() {
        for (path, rule) in POLICY {
            let method = path.rsplit('/').next().unwrap();
            if *rule == ADMIN {
                continue;
            }
            let reads = ["Get", "List", "Check", "Watch", "ServerReflection"];
            let changes = !reads.iter().any(|word| method.starts_with(word));
            assert_eq!(matches!(rule, Rule::Scope(_)), changes, "{path}");
        }
    }
}
