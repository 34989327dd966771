// Owns what is said of many figures at once.

export const median = (values: number[]): number => at(values, 0.5)

/** The value below which such a share of them lies; NaN for none. */
export const at = (values: number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? Number.NaN
