// Owns telling listeners: what one of them throws is the app's bug, and keeps nothing from the others.

export function tellAll<T>(listeners: Iterable<(event: T) => void>, event: T): void {
  for (const listener of listeners) {
    try {
      listener(event)
    } catch (error) {
      console.error(error)
    }
  }
}
