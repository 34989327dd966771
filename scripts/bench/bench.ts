// Owns what every measurement is handed.
export interface Bench {
  folder: string
  rounds: number
  /** How long each round of a load takes. */
  seconds: number
  /** Notes why a peer is not measured. */
  missing(name: string, why: string): void
}
