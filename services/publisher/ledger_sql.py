"""The ledger's statements, each for many posts at once; asyncpg's parameters are their columns."""

from __future__ import annotations

from typing import Final

from services.publisher.ledger import before

INTENTS = """
INSERT INTO ledger (post_id, kind, account, state, attempt, publisher, fence, labels,
                    incident_id, intent_at)
SELECT post_id, kind, account, 'intent', attempt, publisher, fence, labels::jsonb,
       incident_id, intent_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[],
            $7::text[], $8::timestamptz[], $9::bigint[])
     AS new (post_id, kind, account, attempt, publisher, labels, incident_id, intent_at, fence)
ON CONFLICT (post_id) DO UPDATE
SET state = 'intent', attempt = EXCLUDED.attempt, publisher = EXCLUDED.publisher,
    fence = EXCLUDED.fence, intent_at = EXCLUDED.intent_at, changed_at = now(), done_at = NULL,
    hold_id = NULL, detail = ''
WHERE ledger.state IN ('failed', 'withdrawn') AND ledger.attempt < EXCLUDED.attempt
RETURNING post_id
"""
# An intent that another publisher has adopted stays; so does one that whoever asks did not write itself.
UNSENTS = """
WITH new AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[],
                         $7::text[], $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::boolean[])
        AS one (post_id, kind, account, attempt, publisher, labels, incident_id, at, state, detail, hold_id, is_ours)
), ours AS (
    UPDATE ledger SET state = new.state, done_at = new.at, detail = new.detail, hold_id = new.hold_id,
        changed_at = now()
    FROM new WHERE new.is_ours AND ledger.post_id = new.post_id AND ledger.state = 'intent'
        AND ledger.publisher = new.publisher
    RETURNING ledger.post_id
), others AS (
    INSERT INTO ledger (post_id, kind, account, state, attempt, publisher, labels, incident_id, intent_at, done_at,
                        detail, hold_id)
    SELECT post_id, kind, account, state, attempt, publisher, labels::jsonb, incident_id, at, at, detail, hold_id
    FROM new WHERE NOT is_ours
    ON CONFLICT (post_id) DO UPDATE
    SET state = EXCLUDED.state, attempt = EXCLUDED.attempt, publisher = EXCLUDED.publisher, done_at = EXCLUDED.done_at,
        detail = EXCLUDED.detail, hold_id = EXCLUDED.hold_id, changed_at = now()
    WHERE ledger.state IN ('failed', 'withdrawn') AND ledger.attempt < EXCLUDED.attempt
    RETURNING post_id
)
SELECT post_id FROM ours UNION ALL SELECT post_id FROM others
"""
# A try, as JSON.
_TRY = """jsonb_strip_nulls(jsonb_build_object('at', new.at, 'publisher', new.publisher,
        'answer', new.answer, 'fence', new.fence, 'fence_begun_at', new.fence_begun_at))"""
_MAY_BE_SENT: Final = ", ".join(f"'{state}'" for state in before("sent"))
SENTS = f"""
UPDATE ledger
SET state = 'sent', done_at = new.done_at, begun_at = new.at, fence = new.fence,
    fence_begun_at = new.fence_begun_at, publication = new.publication, url = new.url,
    attempts = ledger.attempts || {_TRY},
    detail = new.detail, hold_id = NULL, changed_at = now()
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::bigint[], $5::timestamptz[],
            $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
     AS new (post_id, done_at, at, fence, fence_begun_at, publication, url, publisher, answer, detail)
WHERE ledger.post_id = new.post_id AND ledger.state IN ({_MAY_BE_SENT})
RETURNING ledger.post_id
"""  # noqa: S608  # Constants.
# A slow publisher whose post another has ended knows of less than stands there.
_MAY_SAY_WHAT_IS_OUT = """new.publication IS NOT NULL AND (ledger.publication IS NULL
    OR (ledger.state = 'intent' AND ledger.publisher = new.publisher))"""
ATTEMPT = f"""
UPDATE ledger
SET attempts = CASE WHEN jsonb_array_length(attempts) >= 20 THEN attempts - 0
                    ELSE attempts END || {_TRY},
    publication = CASE WHEN {_MAY_SAY_WHAT_IS_OUT} THEN new.publication ELSE ledger.publication END,
    url = CASE WHEN {_MAY_SAY_WHAT_IS_OUT} THEN COALESCE(new.url, ledger.url) ELSE ledger.url END,
    changed_at = now()
FROM (VALUES ($1::text, $2::timestamptz, $3::text, $4::text, $5::bigint, $6::timestamptz, $7::text, $8::text))
     AS new (post_id, at, publisher, answer, fence, fence_begun_at, publication, url)
WHERE ledger.post_id = new.post_id
"""  # noqa: S608  # Constants.
