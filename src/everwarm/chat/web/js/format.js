// Numbers, sizes and times as people read them. Pure.

const whole = new Intl.NumberFormat("en-US");

/** 101334 -> "101,334" */
export const count = (n) => (Number.isFinite(n) ? whole.format(Math.round(n)) : "–");

/** 0.9979 -> "99.8%"; never rounds up to 100%. */
export function percent(part, digits = 1) {
  if (!Number.isFinite(part)) return "–";
  const scale = 10 ** digits;
  const floored = part < 1 ? Math.floor(part * 100 * scale) / scale : 100;
  return `${floored === 100 || floored === 0 ? floored : floored.toFixed(digits)}%`;
}

/** Seconds: 0.512 -> "0.51 s", 75 -> "1 min 15 s" */
export function seconds(s) {
  if (!Number.isFinite(s)) return "–";
  if (s < 0.00005) return "0 ms";
  if (s < 0.0995) return `${(s * 1000).toFixed(s < 0.00995 ? 1 : 0)} ms`;
  if (s < 9.95) return `${s.toFixed(s < 0.995 ? 2 : 1)} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  const minutes = Math.floor(Math.round(s) / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(s) % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** 1536 -> "1.5 KiB" */
export function bytes(n) {
  if (!Number.isFinite(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i && n < 99.95 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** Unix seconds as a clock time of today, or as a day. */
export function when(at, now = Date.now() / 1000) {
  const date = new Date(at * 1000);
  const today = new Date(now * 1000).toDateString() === date.toDateString();
  return today ? clock.format(date) : day.format(date);
}

/** In which group of the list a time falls. */
export function age(at, now = Date.now() / 1000) {
  const midnight = new Date(now * 1000).setHours(0, 0, 0, 0) / 1000;
  if (at >= midnight) return "Today";
  if (at >= midnight - 86400) return "Yesterday";
  return at >= midnight - 7 * 86400 ? "Last 7 days" : "Older";
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
