// Owns what tests expect of answers.
import assert from 'node:assert/strict'

/** The answer is this problem; answers its members. */
export async function expectProblem(
  response: Response,
  code: string,
  status?: number,
): Promise<Record<string, unknown>> {
  const text = await response.text()
  assert.equal(response.headers.get('content-type'), 'application/problem+json', text)
  const problem = JSON.parse(text) as Record<string, unknown>
  assert.equal(problem['code'], code, text)
  assert.equal(problem['status'], response.status)
  if (status !== undefined) assert.equal(response.status, status, text)
  return problem
}

export async function expectStatus(response: Response, status: number): Promise<Response> {
  if (response.status !== status)
    assert.fail(`${response.status}, not ${status}: ${await response.text()}`)
  return response
}
