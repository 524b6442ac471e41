//! `ringfence pat`: tokens.

use super::operations::{self, answered, tell, time};
use super::{GlobalArgs, PatArgs, PatCommand};
use crate::proto::ringfence::v1 as wire;
use serde_json::json;

pub(super) fn run(args: &PatArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    operations::run(global, args.data_dir.as_deref(), async |host| match &args.command {
        PatCommand::Create { user, name, scope, expires_in } => {
            let request = host.request(wire::CreateTokenRequest {
                user_id: user.clone().unwrap_or_default(),
                name: name.clone(),
                scopes: scope.clone(),
                expires_in_seconds: expires_in.map(|duration| duration.as_secs()),
            });
            let made = answered(host.rpc.create_token(request).await)?;
            let wire::CreateTokenResponse { token, secret } = made;
            let token = token.unwrap_or_default();
            if !global.json {
                // The token alone is on standard output, for a file or a variable.
                super::note(&format!("{}; it is shown only now", text(&token)));
            }
            tell(
                global,
                || secret.clone(),
                || {
                    let mut object = object(&token);
                    if let Some(fields) = object.as_object_mut() {
                        fields.insert("pat".to_owned(), secret.clone().into());
                    }
                    object
                },
            )
        }
        PatCommand::List { user } => {
            let user_id = user.clone().unwrap_or_default();
            let request = host.request(wire::ListTokensRequest { user_id });
            let found = answered(host.rpc.list_tokens(request).await)?;
            for token in found.tokens {
                tell(global, || text(&token), || object(&token))?;
            }
            Ok(())
        }
        PatCommand::Revoke { id } => {
            let request = host.request(wire::RevokeTokenRequest { id: id.clone() });
            let token = answered(host.rpc.revoke_token(request).await)?;
            tell(global, || text(&token), || object(&token))
        }
    })
}

fn text(token: &wire::Token) -> String {
    let mut text = format!("{}  {}  {}", token.id, token.user_id, token.scopes.join(","));
    if !token.name.is_empty() {
        text.push_str(&format!("  {:?}", token.name));
    }
    text.push_str(&format!("  since {}", time(token.created_at)));
    if let Some(at) = token.expires_at {
        text.push_str(&format!("  until {}", time(at)));
    }
    if let Some(at) = token.revoked_at {
        text.push_str(&format!("  revoked {}", time(at)));
    }
    text
}

fn object(token: &wire::Token) -> serde_json::Value {
    json!({
        "token": token.id,
        "user": token.user_id,
        "name": token.name,
        "scopes": token.scopes,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    })
}
