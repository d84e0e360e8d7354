"""What the demo says, in English and Spanish, and how each writes its numbers."""

import msgspec

from genesis_cache.model.errors import SettingsError


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """One language."""

    comma_is_decimal: bool
    title: str
    traffic: str
    backend: str
    pace: str
    waits_real: str
    waits_scaled: str
    tiers: str
    own_server: str
    page: str
    without: str
    with_cache: str
    hits: str
    warm_up: str
    before: str
    after: str
    change: str
    latency_mean: str
    latency_p50: str
    latency_p99: str
    answer_mean: str
    row_mean: str
    queries: str
    calls: str
    usd: str
    hit_ratio: str
    goals: str
    goal_latency: str
    goal_hits: str
    goal_database: str
    goal_cost: str
    update_title: str
    update_old: str
    update_done: str
    update_new: str
    update_again: str
    freeze_title: str
    freeze: str
    freeze_back: str
    restart_title: str
    restart: str
    from_disk: str
    from_shared: str
    serving: str
    control: str
    stopped: str
    stopped_servers: str

    def number(self, value: float, digits: int = 0) -> str:
        """A number with thousands marked, as this language writes it."""
        text = f"{value:,.{digits}f}"
        return text.translate(_SWAP) if self.comma_is_decimal else text

    def ms(self, value: float) -> str:
        """Milliseconds with three digits that matter."""
        digits = next((digits for least, digits in _MS_DIGITS if value >= least), 4)
        return f"{self.number(value, digits)} ms"

    def percent(self, share: float, digits: int = 1) -> str:
        """A share as a percentage."""
        return f"{self.number(share * 100, digits)} %"


_MS_DIGITS = ((100, 0), (10, 1), (1, 2))  # from so many milliseconds on, so many decimals
_SWAP = str.maketrans(",.", ".,")

_ENGLISH = Words(
    comma_is_decimal=False,
    title="A shop's assistant, without and with the cache",
    traffic="Traffic: {requests} recorded look-ups of {objects} objects",
    backend="Backend: a row takes {row}; a model's answer {answer} and USD {usd}",
    pace="Pace:    {rate} requests a second, the same ones twice; {waits}",
    waits_real="every wait is real",
    waits_scaled="waits are real / {speed}",
    tiers="Tiers:   {tiers}",
    own_server="own server",
    page="Live:    {url}",
    without="Without",
    with_cache="With",
    hits="hits",
    warm_up="Warming up, % answered at once by tenth: {tenths}",
    before="before",
    after="after",
    change="change",
    latency_mean="Latency, mean",
    latency_p50="Latency, median",
    latency_p99="Latency, 99th percentile",
    answer_mean="Agent answer, mean",
    row_mean="Product row, mean",
    queries="Database queries a minute",
    calls="Model calls a minute",
    usd="Model cost an hour, USD",
    hit_ratio="Hit ratio",
    goals="Goals",
    goal_latency="latency -80 %",
    goal_hits="hits 85 %",
    goal_database="database -70 %",
    goal_cost="cost -60 %",
    update_title="A price changes",
    update_old="from the cache   {took:>11}   {answer}",
    update_done='price changed at the source; delete_by_tag("product:{number}") forgets all it built',
    update_new="asked at once    {took:>11}   {answer}",
    update_again="asked again      {took:>11}   from the cache",
    freeze_title="Redis hangs",
    freeze="stopped for {seconds} s, {requests} visits; p99 before {before}, during {during}",
    freeze_back="in use again {back} after it went on",
    restart_title="A restart",
    restart="{asked} objects {where}, {calls} backend calls; median {p50}, p99 {p99}",
    from_disk="from disk",
    from_shared="from the servers",
    serving="Light traffic goes on until you press Ctrl-C. See it live on the dashboard:",
    control="To make the cache forget there, the control token is {token}",
    stopped="Stopped; the temporary folder is gone.",
    stopped_servers="Stopped; the servers that were started for it are gone.",
)

_SPANISH = Words(
    comma_is_decimal=True,
    title="El asistente de una tienda, sin caché y con caché",
    traffic="Tráfico: {requests} consultas grabadas de {objects} objetos",
    backend="Origen:  una fila, {row}; una respuesta del modelo, {answer} y USD {usd}",
    pace="Ritmo:   {rate} peticiones/s, las mismas dos veces; {waits}",
    waits_real="cada espera es real",
    waits_scaled="esperas reales / {speed}",
    tiers="Niveles: {tiers}",
    own_server="servidor propio",
    page="En vivo: {url}",
    without="Sin caché",
    with_cache="Con caché",
    hits="aciertos",
    warm_up="Calentando, % al instante por décimo: {tenths}",
    before="antes",
    after="después",
    change="cambio",
    latency_mean="Latencia, media",
    latency_p50="Latencia, mediana",
    latency_p99="Latencia, percentil 99",
    answer_mean="Respuesta del agente, media",
    row_mean="Fila de producto, media",
    queries="Consultas a la BD por minuto",
    calls="Llamadas al modelo por min.",
    usd="Coste del modelo por hora, USD",
    hit_ratio="Tasa de aciertos",
    goals="Metas",
    goal_latency="latencia -80 %",
    goal_hits="aciertos 85 %",
    goal_database="BD -70 %",
    goal_cost="coste -60 %",
    update_title="Cambia un precio",
    update_old="de la caché      {took:>11}   {answer}",
    update_done='precio cambiado; delete_by_tag("product:{number}") olvida cuanto salió de él',
    update_new="justo después    {took:>11}   {answer}",
    update_again="otra vez         {took:>11}   de la caché",
    freeze_title="Redis se cuelga",
    freeze="parado {seconds} s, {requests} visitas; p99 antes {before}, durante {during}",
    freeze_back="en uso otra vez {back} después de seguir",
    restart_title="Un reinicio",
    restart="{asked} objetos {where}, {calls} llamadas al origen; mediana {p50}, p99 {p99}",
    from_disk="del disco",
    from_shared="de los servidores",
    serving="Sigue un tráfico ligero hasta que pulse Ctrl-C. Véalo en vivo en el panel:",
    control="Para que la caché olvide desde ahí, el token de control es {token}",
    stopped="Parado; la carpeta temporal ya no está.",
    stopped_servers="Parado; los servidores que se arrancaron ya no están.",
)

_LANGUAGES = {"en": _ENGLISH, "es": _SPANISH}


def words(language: str) -> Words:
    """The words of a language; `SettingsError` where there are none."""
    try:
        return _LANGUAGES[language]
    except KeyError:
        raise SettingsError(f"CACHE_LANGUAGE={language!r} is not known: use one of {', '.join(_LANGUAGES)}") from None
