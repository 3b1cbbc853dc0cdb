-- Refreshes of all users that an administrator asked for: how each one goes, and what became of every user.
-- Any gateway process can tell, whichever runs it.

CREATE TABLE IF NOT EXISTS claude_oauth.refresh_jobs (
  job_id       uuid PRIMARY KEY,
  status       text NOT NULL DEFAULT 'running'
               CHECK (status IN ('running', 'finished', 'stopped', 'interrupted')),
  actor        text NOT NULL,
  -- Who has at most so many seconds left is refreshed; with force everybody is.
  min_validity double precision NOT NULL,
  force        boolean NOT NULL,
  started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Written every few seconds while it runs: a job that falls silent has lost its process.
  heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at  timestamptz,
  -- How many were logged in when it began.
  total        bigint NOT NULL,
  refreshed    bigint NOT NULL DEFAULT 0,
  fresh        bigint NOT NULL DEFAULT 0,
  failed       bigint NOT NULL DEFAULT 0,
  skipped      bigint NOT NULL DEFAULT 0,
  message      text,
  CHECK ((status = 'running') = (finished_at IS NULL))
);

-- One at a time: two would only ask the provider for the same users.
CREATE UNIQUE INDEX IF NOT EXISTS claude_oauth_refresh_jobs_running ON claude_oauth.refresh_jobs (status)
  WHERE status = 'running';

CREATE TABLE IF NOT EXISTS claude_oauth.refresh_job_results (
  job_id            uuid NOT NULL,
  user_id           text COLLATE "C" NOT NULL,
  result            text NOT NULL CHECK (result IN ('refreshed', 'fresh', 'failed', 'skipped')),
  code              text,
  message           text,
  generation_before bigint NOT NULL,
  generation        bigint NOT NULL,
  expires_at        timestamptz,
  PRIMARY KEY (job_id, user_id)
);
