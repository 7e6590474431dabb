/* brain-realtime 0.1.0 */
var r=class extends Error{constructor(r,e,o){super(e),this.code=r,this.advice=o,this.name="BrainError"}code;advice},e=r=>"reportError"in globalThis?reportError(r):console.error(r),o=class{r="";get url(){return this.r}};function s(r,e){let s=new o;return s.r=r,Object.assign(s,e)}export{r as BrainError,o as Core,s as createBrain,e as report};
