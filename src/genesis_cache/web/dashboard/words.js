// Every word of the page, in English and Spanish. A name in braces is a place for a figure.

import { state } from "./state.js";

const EN = {
  skip: "Skip to the figures", window: "Time shown", pause: "Pause", resume: "Resume", language: "Language",
  theme: "Colours", themeAuto: "System", themeLight: "Light", themeDark: "Dark", alerts: "Alerts", savings: "What it saves",
  stateWait: "Waiting for the first figures", stateOk: "All well", stateDegraded: "Degraded", stateCritical: "{count} critical",
  stateAlerts: "{count} to look at", statePaused: "Paused", stateLost: "No figures since {time}, trying again",
  process: "process {pid}, up {time}, version {version}",
  hitRatio: "Hit ratio", hitRatioNote: "{ratio} since the start", reads: "Reads", readsNote: "{count} since the start",
  avoided: "Loads avoided", avoidedNote: "{count} loads were made", saved: "Time saved", savedNote: "of waiting for loads",
  response: "Mean response", responseNote: "a load takes {time}", noLoad: "nothing was loaded yet", score: "Efficiency", scoreNote: "hits, tiers up, room",
  scoreOf: "of 100", second: "/s",
  funnel: "Where reads are answered", funnelNote: "last {time}, {count} reads", step: "Step", part: "Part of all reads",
  share: "Share", perSecond: "A second", stale: "Old value", waited: "Another's load", missed: "Missed",
  staleNote: "served by permission", waitedNote: "waited for it", missedNote: "loaded, or not found",
  health: "Health", up: "in use", down: "out of use", owed: "{count} changes are still owed to it", queued: "{count} changes are queued for it",
  changes: "Changes by others", heardWithin: "heard within {p50}, p99 {p99}", notHeard: "not heard for {time}", compared: "Copies compared", comparedTold: "{count}, {differed} differed",
  loadsTold: "{running} under way, {queued} in the queue", source: "Source",
  advice: "Advice", noAdvice: "Nothing to advise.",
  outcomes: "Outcomes, reads a second", latency: "Latency of each tier", memory: "Memory and evictions", tier: "Tier", held: "Held",
  size: "Size", entries: "Entries", evicted: "Evicted", evictions: "Evictions a second", of: "{size} of {capacity}",
  spaces: "Namespaces", name: "Name", hits: "Hits", loads: "Loads", failed: "Failed", root: "(root)",
  hot: "Hot and wasteful keys", whatIf: "What if it were larger", load: "load",
  reason_size: "for room", reason_entries: "for room", reason_ttl: "expired", reason_damaged: "damaged", reason_explicit: "on request", reason_invalidated: "invalidated",
  none: "none", nothingYet: "No reads in this time", nothingTimed: "Nothing was timed in this time", nothingEvicted: "Nothing was evicted in this time",
  keys: "Find a key", key: "Key", namespace: "Namespace", owner: "Owner", find: "Find", found: "{key}: {verdict}", searching: "Looking…", findNote: "Which tiers hold it, how old it is, and why a read of it hits or misses.",
  fresh: "fresh", verdictStale: "stale", absent: "absent", invalidated: "invalidated", layer: "Layer", present: "Held", age: "Age",
  left: "Left", tags: "Tags", priority: "Priority", forever: "for ever", yes: "yes", no: "no", isStale: "stale",
  again: "Look again", showValue: "Show value", copyCommand: "Copy command", copied: "The command is copied.", notCopied: "The browser did not let the page copy: {command}",
  remove: "Put away", forgetKey: "Forget", gone: "{key} is forgotten.",
  control: "Make it forget", controlOff: "Control is off: no token is configured. Set CACHE_CONTROL_TOKEN and start the server again.",
  token: "Control token", tokenNote: "Kept by this page until you leave it, and sent nowhere but to this server.", tokenFirst: "Give the control token first.",
  by: "By", tag: "Tag", pattern: "Pattern", user: "User", nameOf: "Which", count: "Count", forget: "Forget",
  wouldReach: "{count} entries in memory would be forgotten, and every copy of them elsewhere.",
  wouldReachOne: "1 entry in memory would be forgotten, and every copy of it elsewhere.",
  wouldReachNone: "No entry in memory is reached; copies elsewhere would be forgotten.", cannotCount: "What it reaches cannot be counted, because there is no memory tier here.",
  done: "Done: {count} entries in memory were reached.", doneOne: "Done: 1 entry in memory was reached.", doneUncounted: "Done.", owing: "Not everywhere yet: {tiers} will be told until it is.",
  clear: "Clear a namespace, or everything", clearNow: "Clear", namespaceOrAll: "Namespace; empty means everything", inTier: "In", everyTier: "every tier",
  confirm: "To clear it, type", everything: "everything",
  oneProcess: "Figures are of the process that answers; the metrics add all workers up.", json: "JSON", levels: "levels", efficiency: "efficiency", metrics: "metrics",
  probe: "health", licences: "licences", links: "Links", noAnswer: "The server did not answer.", dots: "No browser can ask for the key {key}: use genesis-cache explain.", refused: "The server refused: {status}.",
  alert_tier_down: "Tier down", alert_saturation: "Too small", alert_low_hit_ratio: "Few hits",
  alertTierDown: "{tier} is out of use: {reason}", alertSaturation: "{tier} is {full} full and pushed out {count} entries for room",
  alertLowHitRatio: "{ratio} of {count} reads were hits",
};

const ES = {
  skip: "Ir a las cifras", window: "Tiempo mostrado", pause: "Pausar", resume: "Seguir", language: "Idioma",
  theme: "Colores", themeAuto: "Sistema", themeLight: "Claro", themeDark: "Oscuro", alerts: "Alertas", savings: "Lo que ahorra",
  stateWait: "Esperando las primeras cifras", stateOk: "Todo bien", stateDegraded: "Degradada", stateCritical: "{count} críticas",
  stateAlerts: "{count} por revisar", statePaused: "En pausa", stateLost: "Sin cifras desde las {time}, reintentando",
  process: "proceso {pid}, {time} en marcha, versión {version}",
  hitRatio: "Tasa de aciertos", hitRatioNote: "{ratio} desde el inicio", reads: "Lecturas", readsNote: "{count} desde el inicio",
  avoided: "Cargas evitadas", avoidedNote: "{count} cargas hechas", saved: "Tiempo ahorrado", savedNote: "de espera por cargas",
  response: "Respuesta media", responseNote: "una carga tarda {time}", noLoad: "aún no se cargó nada", score: "Eficiencia", scoreNote: "aciertos, niveles, espacio",
  scoreOf: "de 100", second: "/s",
  funnel: "Dónde se responden las lecturas", funnelNote: "últimos {time}, {count} lecturas", step: "Paso", part: "Parte de todas las lecturas",
  share: "Parte", perSecond: "Por segundo", stale: "Valor viejo", waited: "Carga de otro", missed: "Fallos",
  staleNote: "servido con permiso", waitedNote: "la esperaron", missedNote: "cargado o no encontrado",
  health: "Salud", up: "en uso", down: "fuera de uso", owed: "se le deben aún {count} cambios", queued: "{count} cambios en cola",
  changes: "Cambios de otros", heardWithin: "se oyen en {p50}, p99 {p99}", notHeard: "no se oyen desde hace {time}", compared: "Copias comparadas", comparedTold: "{count}, {differed} distintas",
  loadsTold: "{running} en curso, {queued} en cola", source: "Origen",
  advice: "Consejos", noAdvice: "Nada que aconsejar.",
  outcomes: "Resultados, lecturas por segundo", latency: "Latencia de cada nivel", memory: "Memoria y expulsiones", tier: "Nivel", held: "Ocupado",
  size: "Tamaño", entries: "Entradas", evicted: "Expulsadas", evictions: "Expulsiones por segundo", of: "{size} de {capacity}",
  spaces: "Espacios de nombres", name: "Nombre", hits: "Aciertos", loads: "Cargas", failed: "Fallidas", root: "(raíz)",
  hot: "Claves calientes y derrochadoras", whatIf: "Y si fuera mayor", load: "carga",
  reason_size: "por espacio", reason_entries: "por espacio", reason_ttl: "caducadas", reason_damaged: "dañadas", reason_explicit: "a petición", reason_invalidated: "invalidadas",
  none: "ninguna", nothingYet: "Sin lecturas en este tiempo", nothingTimed: "Nada se midió en este tiempo", nothingEvicted: "Nada fue expulsado en este tiempo",
  keys: "Buscar una clave", key: "Clave", namespace: "Espacio", owner: "Dueño", find: "Buscar", found: "{key}: {verdict}", searching: "Buscando…", findNote: "Qué niveles la tienen, cuánto hace, y por qué una lectura acierta o falla.",
  fresh: "fresca", verdictStale: "caducada", absent: "ausente", invalidated: "invalidada", layer: "Capa", present: "Está", age: "Edad",
  left: "Le queda", tags: "Etiquetas", priority: "Prioridad", forever: "para siempre", yes: "sí", no: "no", isStale: "caducada",
  again: "Mirar otra vez", showValue: "Ver valor", copyCommand: "Copiar orden", copied: "La orden está copiada.", notCopied: "El navegador no dejó copiar: {command}",
  remove: "Apartar", forgetKey: "Olvidar", gone: "{key} está olvidada.",
  control: "Hacer que olvide", controlOff: "El control está apagado: no hay token. Ponga CACHE_CONTROL_TOKEN y arranque el servidor otra vez.",
  token: "Token de control", tokenNote: "Esta página lo guarda hasta que la deje, y solo lo envía a este servidor.", tokenFirst: "Escriba antes el token de control.",
  by: "Por", tag: "Etiqueta", pattern: "Patrón", user: "Usuario", nameOf: "Cuál", count: "Contar", forget: "Olvidar",
  wouldReach: "Se olvidarían {count} entradas en memoria, y todas sus copias en otros niveles.",
  wouldReachOne: "Se olvidaría 1 entrada en memoria, y todas sus copias en otros niveles.",
  wouldReachNone: "No alcanza ninguna entrada en memoria; se olvidarían las copias de otros niveles.", cannotCount: "No se puede contar lo que alcanza, porque aquí no hay nivel de memoria.",
  done: "Hecho: alcanzó {count} entradas en memoria.", doneOne: "Hecho: alcanzó 1 entrada en memoria.", doneUncounted: "Hecho.", owing: "Aún no en todas partes: {tiers} lo sabrá en cuanto se pueda.",
  clear: "Vaciar un espacio, o todo", clearNow: "Vaciar", namespaceOrAll: "Espacio; vacío quiere decir todo", inTier: "En", everyTier: "todos los niveles",
  confirm: "Para vaciar, escriba", everything: "todo",
  oneProcess: "Las cifras son del proceso que responde; las métricas suman todos los procesos.", json: "JSON", levels: "niveles", efficiency: "eficiencia", metrics: "métricas",
  probe: "salud", licences: "licencias", links: "Enlaces", noAnswer: "El servidor no respondió.", dots: "Ningún navegador puede pedir la clave {key}: usa genesis-cache explain.", refused: "El servidor se negó: {status}.",
  alert_tier_down: "Nivel caído", alert_saturation: "Demasiado pequeño", alert_low_hit_ratio: "Pocos aciertos",
  alertTierDown: "{tier} está fuera de uso: {reason}", alertSaturation: "{tier} está lleno al {full} y expulsó {count} entradas por espacio",
  alertLowHitRatio: "acertó el {ratio} de {count} lecturas",
};

const ALL = { en: EN, es: ES };

export const has = (name) => name in EN;

export function t(name, places = {}) {
  const text = ALL[state.get("language")][name] ?? EN[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, place) => places[place] ?? whole);
}

// Puts the language into everything that stands in the page itself.
export function translatePage() {
  document.documentElement.lang = state.get("language");
  for (const element of document.querySelectorAll("[data-t]")) {
    if (element.id !== "pause") element.textContent = t(element.dataset.t);
  }
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
}
