/*
 * The words of what goes wrong: refusals, parameters, scripts that can't start.  As in
 * dictionary.js, of which they are a part: [French, English].
 */

/** @type {Record<string, [string, string]>} */
export const ERROR_WORDS = {
  bad_required: ["Ce champ est obligatoire.", "This field is required."],
  bad_minimum: ["Au moins {limit} ; reçu : {value}.", "At least {limit}; got {value}."],
  bad_maximum: ["Au plus {limit} ; reçu : {value}.", "At most {limit}; got {value}."],
  bad_short: [
    "Au moins {limit} caractères ; reçu : {value}.",
    "At least {limit} characters; got {value}.",
  ],
  bad_long: [
    "Au plus {limit} caractères ; reçu : {value}.",
    "At most {limit} characters; got {value}.",
  ],
  bad_pattern: ["Doit correspondre au motif {limit}.", "Must match the pattern {limit}."],
  bad_enum: ["Valeurs possibles : {limit}.", "Possible values: {limit}."],
  bad_integer: ["Un nombre entier est attendu.", "A whole number is expected."],
  bad_number: ["Un nombre est attendu.", "A number is expected."],
  bad_option: [
    "Ne doit pas commencer par « - » : ce serait pris pour une option.",
    "Must not begin with “-”: it could be taken for an option.",
  ],
  bad_control: ["Les caractères de contrôle sont refusés.", "Control characters are refused."],
  bad_date: ["Une date est attendue (AAAA-MM-JJ).", "A date is expected (YYYY-MM-DD)."],
  bad_time: [
    "Une date, une heure et un décalage horaire sont attendus.",
    "A date, a time and an offset are expected.",
  ],
  bad_unknown: ["Ce cron n'a pas ce paramètre.", "This cron has no such parameter."],

  script_missing: ["Le script {path} est introuvable.", "The script {path} is missing."],
  script_mode: [
    "Le script {path} n'est pas exécutable : chmod +x {path}",
    "The script {path} is not executable: chmod +x {path}",
  ],
  script_folder: ["{path} n'est pas un fichier.", "{path} is not a file."],
  script_lines: [
    "La première ligne de {path} se termine comme sous Windows (CR LF) : sed -i 's/\\r$//' {path}",
    "The first line of {path} ends as on Windows (CR LF): sed -i 's/\\r$//' {path}",
  ],
  script_interpreter: [
    "Le script {path} demande l'interpréteur {other}, qui est introuvable.",
    "The script {path} asks for the interpreter {other}, which is missing.",
  ],
  script_unsafe: [
    "{path} n'est pas sûr : un autre utilisateur pourrait le modifier.",
    "{path} is not safe: other users can modify it.",
  ],
  script_tool: ["{path} n'est pas dans PATH : installez-le.", "{path} is not on PATH: install it."],
  server_said: ["Le serveur dit : {error}", "The server says: {error}"],
  forbidden: [
    "Le serveur refuse cette page : son adresse ou son origine n'est pas admise (CRON_TRIGGER_ALLOW, CRON_TRIGGER_ALLOWED_ORIGINS).",
    "The server refuses this page: its address or origin is not allowed (CRON_TRIGGER_ALLOW, CRON_TRIGGER_ALLOWED_ORIGINS).",
  ],
  misdirected: [
    "Le serveur ne connaît pas le nom {host} : ajoutez-le à CRON_TRIGGER_ALLOWED_HOSTS.",
    "The server does not know the name {host}: add it to CRON_TRIGGER_ALLOWED_HOSTS.",
  ],
  unknown_cron: ["Ce cron n'est plus dans le registre.", "This cron is no longer registered."],
  not_found: ["Le serveur ne l'a pas ou plus.", "The server does not have it (any more)."],
  not_running: ["Cette exécution est déjà terminée.", "This run has already ended."],
  shutting_down: [
    "Le serveur s'arrête. Réessayez dans {seconds} s.",
    "The server is stopping. Try again in {seconds} s.",
  ],
  too_many_plans: [
    "Trop de déclenchements planifiés : annulez-en d'abord.",
    "Too many planned triggers: cancel some first.",
  ],
  server_fault: [
    "Le serveur a rencontré une erreur ; son journal en dit plus.",
    "The server met an error; its log says more.",
  ],
  restarted: [
    "le serveur ou la machine s'est arrêté pendant l'exécution",
    "the server or the machine stopped during the run",
  ],
  script_program: ["Le programme {path} n'est pas installé.", "The program {path} is not installed."],
  script_noexec: [
    "Le script {path} est sur un système de fichiers monté noexec : déplacez-le ou nommez son interpréteur.",
    "The script {path} lies on a file system mounted noexec: move it or name its interpreter.",
  ],
  script_reach: ["{path} est inaccessible.", "{path} cannot be reached."],
  script_user: ["L'utilisateur {path} n'existe pas sur cet hôte.", "There is no user {path} on this host."],
  script_root: [
    "Seul un serveur root peut l'exécuter en tant que {path}.",
    "Only a server of root can run it as {path}.",
  ],
  script_directory: ["Le dossier {path} est introuvable.", "The folder {path} is missing."],
  script_typescript: [
    "Un script .ts a besoin de tsx dans PATH : npm install -g tsx",
    "A .ts script needs tsx on PATH: npm install -g tsx",
  ],
  script_output: [
    "La sortie n'a pas pu être gardée.",
    "Its output could not be kept.",
  ],
  keeper_killed: [
    "Le processus gardien a été tué ; le reste de l'exécution a été arrêté.",
    "The run's keeper was killed; what was left of the run was ended.",
  ],
};
