// Owns the names of the headers that browsers have to be told of: see CORS in the protocol.

/** Those of answers that a page may read. */
export const EXPOSED = [
  'Accept-Ranges',
  'Allow',
  'Content-Disposition',
  'Content-Length',
  'Content-Range',
  'Content-Security-Policy',
  'ETag',
  'Last-Modified',
  'Repr-Digest',
  'Retry-After',
  'WWW-Authenticate',
  'X-Content-Type-Options',
  'X-Request-Id',
  'X-Sync-Key',
  'X-Sync-Meta',
  'X-Sync-Quota-Limit',
  'X-Sync-Quota-Used',
  'X-Sync-Token',
]

/** Those that a page may send. */
export const ALLOWED = [
  'Authorization',
  'Content-Digest',
  'Content-Type',
  'If-Match',
  'If-None-Match',
  'If-Range',
  'Last-Event-ID',
  'Range',
  'Repr-Digest',
  'X-Sync-Meta',
  'X-Sync-Token',
]
