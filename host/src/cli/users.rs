//! `ringfence users`: who there is, and what each may take.

use super::operations::{self, answered, tell, time};
use super::{GlobalArgs, QuotaArgs, UsersArgs, UsersCommand};
use crate::proto::ringfence::v1 as wire;
use crate::text::counted;
use serde_json::json;

pub(super) fn run(args: &UsersArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    operations::run(global, args.data_dir.as_deref(), async |host| {
        let users = match &args.command {
            UsersCommand::Create { user } => {
                let request = host.request(wire::CreateUserRequest { id: user.clone() });
                vec![answered(host.rpc.create_user(request).await)?]
            }
            UsersCommand::List => {
                let request = host.request(wire::ListUsersRequest {});
                answered(host.rpc.list_users(request).await)?.users
            }
            UsersCommand::Disable { user } => vec![update(host, disabled(user, true)).await?],
            UsersCommand::Enable { user } => vec![update(host, disabled(user, false)).await?],
            UsersCommand::Quota(quota) => {
                let asked = wire::UpdateUserRequest {
                    id: quota.user.clone(),
                    quota: Some(of(quota)),
                    reset_quota: quota.reset,
                    ..Default::default()
                };
                vec![update(host, asked).await?]
            }
        };
        for user in &users {
            tell(global, || text(user), || object(user))?;
        }
        Ok(())
    })
}

async fn update(
    host: &mut operations::Operations,
    asked: wire::UpdateUserRequest,
) -> anyhow::Result<wire::User> {
    let request = host.request(asked);
    answered(host.rpc.update_user(request).await)
}

fn disabled(user: &str, disabled: bool) -> wire::UpdateUserRequest {
    let (id, disabled) = (user.to_owned(), Some(disabled));
    wire::UpdateUserRequest { id, disabled, ..Default::default() }
}

fn of(args: &QuotaArgs) -> wire::Quota {
    wire::Quota {
        calls_max: args.calls,
        fuel_per_minute_max: args.fuel_per_minute,
        stored_bytes_max: args.stored_bytes,
        models_max: args.models,
        compilations_per_hour_max: args.compilations_per_hour,
    }
}

fn limits(user: &wire::User) -> Vec<(&'static str, Option<u64>)> {
    let quota = user.quota.unwrap_or_default();
    vec![
        ("calls", quota.calls_max),
        ("fuel-per-minute", quota.fuel_per_minute_max),
        ("stored-bytes", quota.stored_bytes_max),
        ("models", quota.models_max),
        ("compilations-per-hour", quota.compilations_per_hour_max),
    ]
}

fn text(user: &wire::User) -> String {
    let mut text = format!(
        "{}  since {}  {}, {}{}",
        user.id,
        time(user.created_at),
        counted(user.models, "model"),
        counted(user.stored_bytes, "byte"),
        if user.disabled { "  disabled" } else { "" }
    );
    for (name, limit) in limits(user) {
        if let Some(limit) = limit {
            text.push_str(&format!("  {name} {limit}"));
        }
    }
    text
}

fn object(user: &wire::User) -> serde_json::Value {
    let quota: serde_json::Map<_, _> =
        limits(user).into_iter().map(|(name, limit)| (name.to_owned(), limit.into())).collect();
    json!({
        "user": user.id,
        "created_at": user.created_at,
        "disabled": user.disabled,
        "models": user.models,
        "stored_bytes": user.stored_bytes,
        "quota": quota,
    })
}
