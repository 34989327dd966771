// Owns the forms in which a statement may be given: text, with arguments or without, or both in one.
import type { InValue } from '@libsql/core/api'
import type { Database, Statement } from './database.ts'

export const isRead = (sql: string): boolean => /^\s*(SELECT|PRAGMA)\b/i.test(sql)

export function toStatement(
  statement: string | { sql: string; args?: unknown },
  args?: unknown,
): Statement {
  return typeof statement === 'string'
    ? { sql: statement, args: (args ?? []) as InValue[] }
    : { sql: statement.sql, args: (statement.args ?? []) as InValue[] }
}

export const toStatements = (statements: Parameters<Database['batch']>[0]): Statement[] =>
  statements.map((statement) =>
    Array.isArray(statement)
      ? toStatement(statement[0] as string, statement[1])
      : toStatement(statement),
  )
