//! The capability sheet of a model on a host: what the host tells a caller.

use super::super::GlobalArgs;
use super::super::client::{self, Client, ModelRef};
use super::Sheet;
use crate::proto::clarifai::api::{
    self, GetModelRequest, GetModelVersionRequest, ModelTypeField, RunnerMethodType,
};
use crate::text::escape_controls;
use anyhow::Context;

pub(super) fn sheet_of(model: &ModelRef, global: &GlobalArgs) -> anyhow::Result<Sheet> {
    let what = format!("inspect {}", model.label());
    client::block_on(async {
        let mut client = Client::connect(global).await?;
        let asked = client.request(GetModelRequest {
            user_app_id: Some(model.user_app_id()),
            model_id: model.name.id().to_owned(),
            version_id: model.version.clone(),
            ..GetModelRequest::default()
        });
        let answer = client.rpc.get_model(asked).await;
        let answer = answer.map_err(|status| client.failed(&what, &status))?.into_inner();
        client.check(&what, answer.status.as_ref())?;
        let found = answer.model.with_context(|| format!("{what}: the answer has no model"))?;
        let version_id = found.model_version.as_ref().map(|version| version.id.clone());
        let version_id = version_id.unwrap_or_default();

        let asked = client.request(GetModelVersionRequest {
            user_app_id: Some(model.user_app_id()),
            model_id: model.name.id().to_owned(),
            version_id: version_id.clone(),
        });
        let answer = client.rpc.get_model_version(asked).await;
        let answer = answer.map_err(|status| client.failed(&what, &status))?.into_inner();
        client.check(&what, answer.status.as_ref())?;
        let version = answer.model_version.unwrap_or_default();

        let mut sheet = Sheet::new();
        let name = format!("{}/{}/{}", found.user_id, found.app_id, found.id);
        let kind = &found.model_type_id;
        sheet.push(("model", escape_controls(&format!("{name} of type {kind}"))));
        sheet.push(("version", escape_controls(&version_id)));
        if let Some(status) = &version.status {
            let code = client::describe(status);
            sheet.push(("status", escape_controls(&code)));
        }
        if version.active_concept_count > 0 {
            sheet.push(("concepts", version.active_concept_count.to_string()));
        }
        let methods = version.method_signatures.iter();
        sheet.extend(methods.map(|method| ("method", escape_controls(&signature(method)))));
        let text = "of this host: limits, imports, graphs and assets are told by the folder alone";
        sheet.push(("note", text.to_owned()));
        Ok(sheet)
    })
}

/// `predict(prompt: STR, heat: FLOAT = 0.5) -> STR`.
fn signature(method: &api::MethodSignature) -> String {
    let argument = |field: &ModelTypeField| {
        let default = match field.default.is_empty() {
            true => String::new(),
            false => format!(" = {}", field.default),
        };
        format!("{}: {}{default}", field.name, kind(field))
    };
    let arguments: Vec<String> = method.input_fields.iter().map(argument).collect();
    let results: Vec<String> = method.output_fields.iter().map(kind).collect();
    let streams = match method.method_type() {
        RunnerMethodType::UnaryStreaming | RunnerMethodType::StreamingStreaming => "stream of ",
        RunnerMethodType::Unknown
        | RunnerMethodType::UnaryUnary
        | RunnerMethodType::StreamingUnary => "",
    };
    format!("{}({}) -> {streams}{}", method.name, arguments.join(", "), results.join(", "))
}

fn kind(field: &ModelTypeField) -> String {
    let kind = field.r#type().as_str_name();
    let inner: Vec<String> = field.type_args.iter().map(self::kind).collect();
    let kind = match inner.is_empty() {
        true => kind.to_owned(),
        false => format!("{kind}[{}]", inner.join(", ")),
    };
    if field.iterator { format!("stream of {kind}") } else { kind }
}
